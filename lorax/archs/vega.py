"""Segmind Vega: SDXL with 15 of its 70 transformer blocks left (arXiv 2401.02677)."""

from __future__ import annotations

from lorax.layers import Component
from lorax.structure import Arch, TextStructure, UNetStructure
from lorax.structure.blocks import down_stage, up_stage

VEGA = Arch(
    name="vega",
    family="sdxl",
    title="Segmind Vega",
    unet=UNetStructure(
        down=(down_stage(0, 0), down_stage(1, 1, widens=True), down_stage(2, 2, sampler=False, widens=True)),
        mid_resnets=1,
        mid_depth=0,
        up=(up_stage(2, 2, 2), up_stage(1, 1, 1), up_stage(0, 0, 0, sampler=False)),
        linear_projection=True,
        added_embedding=True,
    ),
    text=((Component.TE1, TextStructure("clip", 12)), (Component.TE2, TextStructure("openclip", 32))),
    kohya_unet="single_file",
    base_model_version="sdxl_base_v1-0",
    modelspec_architecture="stable-diffusion-xl-v1-base",
)
