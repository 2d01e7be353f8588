"""BK-SDM: SD1 and SD2.1 with one residual block a level (arXiv 2305.15798); small-sd and tiny-sd are its small and tiny.

Base keeps the middle block, small drops it, tiny drops the innermost level too.
"""

from __future__ import annotations

from lorax.layers import Component
from lorax.structure import Arch, Stage, TextStructure, UNetStructure
from lorax.structure.blocks import down_stage, up_stage

_DOWN = (down_stage(1), down_stage(1, widens=True), down_stage(1, widens=True), down_stage(0, sampler=False))
_UP = (up_stage(0, 0), up_stage(1, 1), up_stage(1, 1), up_stage(1, 1, sampler=False))
_TINY_DOWN = (down_stage(1), down_stage(1, widens=True), down_stage(1, sampler=False, widens=True))
_TINY_UP = (up_stage(1, 1), up_stage(1, 1), up_stage(1, 1, sampler=False))


def _bk_sdm(size: str, mid: tuple[int, int], down: tuple[Stage, ...], up: tuple[Stage, ...], *, v2: bool = False) -> Arch:
    return Arch(
        name=f"bk-sdm-v2-{size}" if v2 else f"bk-sdm-{size}",
        family="sd2" if v2 else "sd1",
        title=f"BK-SDM-v2 {size}" if v2 else f"BK-SDM {size}",
        unet=UNetStructure(down, *mid, up, linear_projection=v2, added_embedding=False, strided=True),
        text=((Component.TE1, TextStructure("openclip", 24) if v2 else TextStructure("clip", 12)),),
        kohya_unet="diffusers",
        base_model_version="sd_v2" if v2 else "sd_v1",
        modelspec_architecture="stable-diffusion-v2-512" if v2 else "stable-diffusion-v1",
    )


BK_SDM_BASE = _bk_sdm("base", (2, 1), _DOWN, _UP)
BK_SDM_SMALL = _bk_sdm("small", (0, 0), _DOWN, _UP)
BK_SDM_TINY = _bk_sdm("tiny", (0, 0), _TINY_DOWN, _TINY_UP)
BK_SDM_V2_BASE = _bk_sdm("base", (2, 1), _DOWN, _UP, v2=True)
BK_SDM_V2_SMALL = _bk_sdm("small", (0, 0), _DOWN, _UP, v2=True)
BK_SDM_V2_TINY = _bk_sdm("tiny", (0, 0), _TINY_DOWN, _TINY_UP, v2=True)
