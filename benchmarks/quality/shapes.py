"""The UNets of the benchmark: narrow, two levels deep, with genuine blocks and names of Stable Diffusion 1 and XL."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from benchmarks.quality.captions import LAYERS, WIDTH1, WIDTH2
from benchmarks.quality.vae import CHANNELS, LATENT
from converter.samples import Widths, diffusers_config
from lorax import Arch, Component, TextStructure, UNetStructure
from lorax.archs import detect
from lorax.structure.blocks import down_stage, up_stage

WIDE = Widths(channels=(32, 64), groups=8, text1=WIDTH1, text2=WIDTH2, heads=4, in_channels=CHANNELS)
NARROW = replace(WIDE, channels=(24, 48), heads=3)
"""Three quarters: of each GroupNorm group, of the heads, of the feed-forward."""

_CLIP = (Component.TE1, TextStructure("clip", LAYERS))
_OPENCLIP = (Component.TE2, TextStructure("openclip", LAYERS))


@dataclass(frozen=True)
class Shape:
    """Blocks and widths of one model."""

    arch: Arch
    widths: Widths

    @property
    def xl(self) -> bool:
        return self.arch.family == "sdxl"


def _sd(resnets: int) -> Arch:
    """SD1.5's pattern: attention everywhere but in the innermost level, 1×1 convolutions as projections."""
    unet = UNetStructure(
        down=(down_stage(*[1] * resnets), down_stage(*[0] * resnets, sampler=False, widens=True)),
        mid_resnets=2,
        mid_depth=1,
        up=(up_stage(*[0] * (resnets + 1)), up_stage(*[1] * (resnets + 1), sampler=False)),
        linear_projection=False,
        added_embedding=False,
    )
    return detect(unet, (_CLIP,))


def _xl(down: tuple[int, int], up: tuple[int, int, int], mid: int) -> Arch:
    """SDXL's pattern: no attention in the outermost level, deep stacks of transformer blocks in the innermost."""
    unet = UNetStructure(
        down=(down_stage(0, 0), down_stage(*down, sampler=False, widens=True)),
        mid_resnets=2 if mid else 1,
        mid_depth=mid,
        up=(up_stage(*up), up_stage(0, 0, 0, sampler=False)),
        linear_projection=True,
        added_embedding=True,
    )
    return detect(unet, (_CLIP, _OPENCLIP))


SD = Shape(_sd(2), WIDE)
SD_BLOCKS = Shape(_sd(1), WIDE)
"""BK-SDM's cut: one residual block of each pair, and the middle one of each three on the way up, are gone."""
SD_WIDTH = Shape(_sd(2), NARROW)
XL = Shape(_xl((3, 3), (3, 3, 3), 3), WIDE)
XL_BLOCKS = Shape(_xl((2, 2), (2, 2, 3), 0), WIDE)
"""SSD-1B's cut: of each stack some transformer blocks, and half of the middle block, are gone."""


def make_unet(shape: Shape, seed: int) -> Any:
    """Untrained UNet2DConditionModel."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(seed)
    return UNet2DConditionModel(**{**diffusers_config(shape.arch, shape.widths), "sample_size": LATENT})
