"""Models on disk: a whole diffusers pipeline as a folder, and beside it the same as one file under LDM or SGM names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.quality.shapes import Shape
from converter.samples.layouts import place
from lorax import Component, write_safetensors

SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def write_model(path: Path, shape: Shape, unet: Any, vae: Any, tokenizer: Any, encoders: list[Any]) -> None:
    """``path`` (a single .safetensors) and the folder of the same name without its ending."""
    pipeline(shape, unet, vae, tokenizer, encoders).save_pretrained(str(path.with_suffix("")))
    metadata = {"modelspec.title": path.stem, "modelspec.prediction_type": "v", "modelspec.architecture": shape.arch.modelspec_architecture}
    write_safetensors(path, single_file(shape, unet, vae, encoders), metadata, overwrite=True)


def pipeline(shape: Shape, unet: Any, vae: Any, tokenizer: Any, encoders: list[Any]) -> Any:
    """diffusers' own pipeline of the parts."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline

    made = {"vae": vae, "unet": unet, "text_encoder": encoders[0], "tokenizer": tokenizer, "scheduler": DDIMScheduler(**SCHEDULE)}
    if shape.xl:
        return StableDiffusionXLPipeline(**made, text_encoder_2=encoders[1], tokenizer_2=tokenizer)
    return StableDiffusionPipeline(**made, safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def read_unet(path: Path) -> Any:
    """The UNet of a model that `write_model` wrote, in fp32, frozen."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel.from_pretrained(str(path.with_suffix("") / "unet")).eval().requires_grad_(False)


def single_file(shape: Shape, unet: Any, vae: Any, encoders: list[Any]) -> dict[str, Tensor]:
    """All tensors under the names of a checkpoint file."""
    states = {Component.UNET: unet.state_dict(), **dict(zip((Component.TE1, Component.TE2), map(_text_state, encoders), strict=False))}
    tensors: dict[str, Tensor] = {}
    for spec in shape.arch.layers():
        name, stored = place(shape.arch, spec, "single_file")
        state = states[spec.id.component]
        for ending, at in (("weight", name), ("bias", name.removesuffix("weight") + "bias")):
            value = state.get(f"{spec.id.path}.{ending}")
            if value is not None:
                _put(tensors, at, value, stored.part, stored.parts)
    if shape.xl:
        tensors["conditioner.embedders.1.model.text_projection"] = encoders[1].text_projection.weight.T.contiguous()
    else:
        betas = torch.linspace(SCHEDULE["beta_start"] ** 0.5, SCHEDULE["beta_end"] ** 0.5, 1000) ** 2
        tensors["alphas_cumprod"] = (1 - betas).cumprod(0)
    return tensors | {f"first_stage_model.{vae_name(name)}": vae_value(name, t) for name, t in vae.state_dict().items()}


def _put(tensors: dict[str, Tensor], name: str, value: Tensor, part: int, parts: int) -> None:
    """Store a tensor, or its block of a fused one (OpenCLIP's q, k and v; its bias is fused under ``in_proj_bias``)."""
    if parts == 1:
        tensors[name] = value
        return
    rows = value.shape[0]
    fused = tensors.setdefault(name, torch.zeros(parts * rows, *value.shape[1:]))
    fused[part * rows : (part + 1) * rows] = value


def _text_state(encoder: Any) -> dict[str, Tensor]:
    """State dict under CLIP's full paths, which transformers 5 shortens."""
    state = encoder.state_dict()
    return {n if n.startswith(("text_model.", "text_projection")) else f"text_model.{n}": t for n, t in state.items()}


def vae_name(name: str, levels: int = 2) -> str:
    """A VAE tensor's name in single files from diffusers'."""
    name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{levels - 1 - int(m[1])}.block.{m[2]}", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = (
        name.replace("mid_block.attentions.0", "mid.attn_1").replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    )
    for theirs, ours in (("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")):
        name = name.replace(f"attn_1.{theirs}.", f"attn_1.{ours}.")
    return name


def vae_value(name: str, value: Tensor) -> Tensor:
    """The attention's projections are 1×1 convolutions in single files."""
    linear = "mid_block.attentions.0.to_" in name and name.endswith("weight")
    return value[:, :, None, None] if linear else value
