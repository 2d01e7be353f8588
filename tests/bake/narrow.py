"""A narrow SD2 with few blocks under its genuine single-file names: OpenCLIP's fused projections, linear proj_in."""

from __future__ import annotations

from dataclasses import replace

import torch

from lorax.archs import by_name
from lorax.layers import Component, LayerKind, LayerSpec
from lorax.structure import Arch, TextStructure, UNetStructure
from lorax.structure.blocks import down_stage, up_stage

WIDTH, CONTEXT, TIME = 32, 24, 40
ARCH: Arch = replace(
    by_name("sd2"),
    name="sd2-custom",
    unet=UNetStructure(
        down=(down_stage(1), down_stage(0, sampler=False, widens=True)),
        mid_resnets=2,
        mid_depth=1,
        up=(up_stage(0, 0), up_stage(1, 0, sampler=False)),
        linear_projection=True,
        added_embedding=False,
    ),
    text=((Component.TE1, TextStructure("openclip", 2)),),
)
PREFIX = {Component.UNET: "model.diffusion_model.", Component.TE1: "cond_stage_model.model."}
NO_BIAS = ("to_q", "to_k", "to_v", "embedding")


def shape(spec: LayerSpec) -> tuple[int, ...]:
    """Of the layer's weight. Every stream is `WIDTH` wide; a resnet of the up path takes a skip of the same width beside it."""
    role, entering = spec.role, WIDTH * (2 if spec.unit.section == "up" else 1)
    if spec.kind == LayerKind.NORM:
        return (entering,) if spec.unit.kind == "resnet" and role == "norm1" else (WIDTH,)
    sizes = {
        "conv_in": (WIDTH, 4, 3, 3),
        "conv_out": (4, WIDTH, 3, 3),
        "conv1": (WIDTH, entering, 3, 3),
        "conv_shortcut": (WIDTH, entering, 1, 1),
        "time_emb_proj": (WIDTH, TIME),
        "time_embedding.linear_1": (TIME, WIDTH),
        "time_embedding.linear_2": (TIME, TIME),
        "attn2.to_k": (WIDTH, CONTEXT),
        "attn2.to_v": (WIDTH, CONTEXT),
        "ff.net.0.proj": (8 * WIDTH, WIDTH),
        "ff.net.2": (WIDTH, 4 * WIDTH),
        "mlp.fc1": (4 * WIDTH, WIDTH),
        "mlp.fc2": (WIDTH, 4 * WIDTH),
        "text_model.embeddings.token_embedding": (50, WIDTH),
        "text_model.embeddings.position_embedding": (77, WIDTH),
    }
    return sizes.get(role, (WIDTH, WIDTH, 3, 3) if spec.kind == LayerKind.CONV else (WIDTH, WIDTH))


def narrow_checkpoint(dtype: torch.dtype = torch.float16, seed: int = 0) -> dict[str, torch.Tensor]:
    """All tensors of the file, VAE and schedule hinted at."""
    generator = torch.Generator().manual_seed(seed)

    def random(*size: int) -> torch.Tensor:
        return (torch.randn(*size, generator=generator) * 0.1).to(dtype)

    tensors: dict[str, torch.Tensor] = {}
    for spec in ARCH.layers():
        name, rows = PREFIX[spec.id.component] + spec.single_file.module, shape(spec)
        if spec.single_file.part:
            continue
        fused = (rows[0] * spec.single_file.parts, *rows[1:])
        tensors[name + spec.single_file.suffix] = random(*fused)
        if not spec.role.endswith(NO_BIAS):
            tensors[name + spec.single_file.suffix.replace("weight", "bias")] = random(fused[0])
    tensors["first_stage_model.decoder.conv_in.weight"] = random(4, 4, 3, 3)
    tensors["alphas_cumprod"] = torch.linspace(1, 0, 10)
    tensors["cond_stage_model.model.logit_scale"] = torch.tensor(4.6)
    return tensors
