"""Tiny live networks of genuine layout, and the same weights as a base file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

from converter.samples import TINY, Widths, diffusers_config, sample_checkpoint, text_config
from lorax.archs import by_name
from lorax.layers import Component
from lorax.safefile import write_safetensors
from lorax.structure import Arch
from tests.train.pictures import VOCABULARY, write_tokenizer

SPEAKING = replace(TINY, vocabulary=VOCABULARY)
"""Wide enough in words for the tokenizer that the tests write."""


@dataclass(frozen=True)
class Live:
    """What a trainer has in memory."""

    arch: Arch
    unet: nn.Module
    text_encoders: list[nn.Module]


@lru_cache(maxsize=8)
def weights(arch: Arch, seed: int, widths: Widths) -> dict[str, torch.Tensor]:
    """A sample's tensors, drawn once."""
    return sample_checkpoint(arch, "diffusers", widths, seed)


def live(name: str, seed: int = 0, widths: Widths = TINY, tensors: Mapping[str, torch.Tensor] | None = None) -> Live:
    """diffusers' UNet and transformers' text encoders with a sample's weights, or the given ones."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    arch = by_name(name)
    tensors = weights(arch, seed, widths) if tensors is None else tensors
    with torch.device("meta"):  # the random start that is thrown away is what takes the time
        unet = UNet2DConditionModel(**diffusers_config(arch, widths)).eval()
    unet.to_empty(device="cpu")
    unet.load_state_dict({n.removeprefix("unet."): t for n, t in tensors.items() if n.startswith("unet.")})
    encoders: list[nn.Module] = []
    for component, prefix in ((Component.TE1, "text_encoder."), (Component.TE2, "text_encoder_2.")):
        if component in arch.components:
            config = CLIPTextConfig(**text_config(arch, component, widths))
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


def diffusers_folder(
    folder: Path, name: str, seed: int = 0, tensors: Mapping[str, torch.Tensor] | None = None, widths: Widths = SPEAKING
) -> Path:
    """A whole tiny pipeline that diffusers loads: UNet, text encoders, VAE, tokenizers, scheduler. tensors: in place of a sample's."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
    from transformers import CLIPTokenizer

    arch = by_name(name)
    parts = live(name, seed, widths, tensors)
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        scaling_factor=0.13025 if arch.family == "sdxl" else 0.18215,
        sample_size=64,
    )
    tokenizer = CLIPTokenizer.from_pretrained(str(write_tokenizer(folder / "tokenizer-made")))
    schedule = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False)
    made = {"vae": vae, "unet": parts.unet, "text_encoder": parts.text_encoders[0], "tokenizer": tokenizer, "scheduler": schedule}
    if arch.family == "sdxl":
        pipe = StableDiffusionXLPipeline(**made, text_encoder_2=parts.text_encoders[1], tokenizer_2=tokenizer)
    else:
        pipe = StableDiffusionPipeline(**made, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipe.save_pretrained(str(folder))
    return folder
