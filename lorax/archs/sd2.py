"""Stable Diffusion 2.x (512 and 768-v): SD1's blocks with linear projections, OpenCLIP-H.

The single file has all 24 layers of the text encoder; diffusers folders drop the last, which is never run.
"""

from __future__ import annotations

from lorax.layers import Component
from lorax.structure import Arch, TextStructure, UNetStructure
from lorax.structure.blocks import down_stage, up_stage

SD2 = Arch(
    name="sd2",
    family="sd2",
    title="Stable Diffusion 2.x",
    unet=UNetStructure(
        down=(down_stage(1, 1), down_stage(1, 1, widens=True), down_stage(1, 1, widens=True), down_stage(0, 0, sampler=False)),
        mid_resnets=2,
        mid_depth=1,
        up=(up_stage(0, 0, 0), up_stage(1, 1, 1), up_stage(1, 1, 1), up_stage(1, 1, 1, sampler=False)),
        linear_projection=True,
        added_embedding=False,
    ),
    text=((Component.TE1, TextStructure("openclip", 24)),),
    kohya_unet="diffusers",
    base_model_version="sd_v2",
    modelspec_architecture="stable-diffusion-v2-512",
)
