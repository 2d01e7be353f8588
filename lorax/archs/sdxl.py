"""Stable Diffusion XL and all that was fine-tuned from it (Pony, Illustrious, NoobAI): 70 transformer blocks, two text encoders."""

from __future__ import annotations

from lorax.layers import Component
from lorax.structure import Arch, TextStructure, UNetStructure
from lorax.structure.blocks import down_stage, up_stage

SDXL = Arch(
    name="sdxl",
    family="sdxl",
    title="Stable Diffusion XL",
    unet=UNetStructure(
        down=(down_stage(0, 0), down_stage(2, 2, widens=True), down_stage(10, 10, sampler=False, widens=True)),
        mid_resnets=2,
        mid_depth=10,
        up=(up_stage(10, 10, 10), up_stage(2, 2, 2), up_stage(0, 0, 0, sampler=False)),
        linear_projection=True,
        added_embedding=True,
    ),
    text=((Component.TE1, TextStructure("clip", 12)), (Component.TE2, TextStructure("openclip", 32))),
    kohya_unet="single_file",
    base_model_version="sdxl_base_v1-0",
    modelspec_architecture="stable-diffusion-xl-v1-base",
)
