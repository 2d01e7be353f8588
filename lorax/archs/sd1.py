"""Stable Diffusion 1.x: 16 transformer blocks, CLIP-L."""

from __future__ import annotations

from lorax.layers import Component
from lorax.structure import Arch, TextStructure, UNetStructure
from lorax.structure.blocks import down_stage, up_stage

SD1 = Arch(
    name="sd1",
    family="sd1",
    title="Stable Diffusion 1.x",
    unet=UNetStructure(
        down=(down_stage(1, 1), down_stage(1, 1, widens=True), down_stage(1, 1, widens=True), down_stage(0, 0, sampler=False)),
        mid_resnets=2,
        mid_depth=1,
        up=(up_stage(0, 0, 0), up_stage(1, 1, 1), up_stage(1, 1, 1), up_stage(1, 1, 1, sampler=False)),
        linear_projection=False,
        added_embedding=False,
    ),
    text=((Component.TE1, TextStructure("clip", 12)),),
    kohya_unet="diffusers",
    base_model_version="sd_v1",
    modelspec_architecture="stable-diffusion-v1",
)
