"""Tiny live networks of genuine layout, and the same weights as a base file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from converter.samples import TINY, diffusers_config, sample_checkpoint, text_config
from lorax.archs import by_name
from lorax.layers import Component
from lorax.safefile import write_safetensors
from lorax.structure import Arch


@dataclass(frozen=True)
class Live:
    """What a trainer has in memory."""

    arch: Arch
    unet: nn.Module
    text_encoders: list[nn.Module]


def live(name: str, seed: int = 0) -> Live:
    """diffusers' UNet and transformers' text encoders with a sample's weights."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    arch = by_name(name)
    tensors = sample_checkpoint(arch, "diffusers", TINY, seed)
    unet = UNet2DConditionModel(**diffusers_config(arch, TINY)).eval()
    unet.load_state_dict({n.removeprefix("unet."): t for n, t in tensors.items() if n.startswith("unet.")})
    encoders: list[nn.Module] = []
    for component, prefix in ((Component.TE1, "text_encoder."), (Component.TE2, "text_encoder_2.")):
        if component in arch.components:
            config = CLIPTextConfig(**text_config(arch, component, TINY))
            kind = CLIPTextModelWithProjection if component == Component.TE2 else CLIPTextModel
            encoder = kind(config).eval()
            own = encoder.state_dict()
            inside = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            encoder.load_state_dict({n: inside[n if n in inside else f"text_model.{n}"] for n in own})
            encoders.append(encoder)
    return Live(arch, unet.requires_grad_(False), encoders)


def base_file(path: Path, name: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    """The same weights as a single file."""
    write_safetensors(path, sample_checkpoint(by_name(name), "single_file", TINY, seed, dtype), {})
    return path
