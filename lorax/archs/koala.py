"""KOALA: SDXL with one residual block a level and 21 or 30 of its 70 transformer blocks left (arXiv 2312.04005)."""

from __future__ import annotations

from lorax.layers import Component
from lorax.structure import Arch, TextStructure, UNetStructure
from lorax.structure.blocks import down_stage, up_stage


def _koala(name: str, title: str, depth: int, mid_resnets: int, mid_depth: int) -> Arch:
    return Arch(
        name=name,
        family="sdxl",
        title=title,
        unet=UNetStructure(
            down=(down_stage(0), down_stage(2, widens=True), down_stage(depth, sampler=False, widens=True)),
            mid_resnets=mid_resnets,
            mid_depth=mid_depth,
            up=(up_stage(depth, depth), up_stage(2, 2), up_stage(0, 0, sampler=False)),
            linear_projection=True,
            added_embedding=True,
        ),
        text=((Component.TE1, TextStructure("clip", 12)), (Component.TE2, TextStructure("openclip", 32))),
        kohya_unet="single_file",
        base_model_version="sdxl_base_v1-0",
        modelspec_architecture="stable-diffusion-xl-v1-base",
    )


KOALA_700M = _koala("koala-700m", "KOALA-700M", depth=5, mid_resnets=0, mid_depth=0)
KOALA_1B = _koala("koala-1b", "KOALA-1B", depth=6, mid_resnets=2, mid_depth=6)
