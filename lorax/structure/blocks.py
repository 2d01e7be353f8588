"""Which blocks a UNet and its text encoders consist of. Nothing here knows a width: narrow models are recognised too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TextKind = Literal["clip", "openclip"]


@dataclass(frozen=True)
class Stage:
    """One resolution level of a UNet's down or up path."""

    depths: tuple[int, ...]
    """One entry per resnet: how many transformer blocks follow it; 0 where no attention follows."""
    sampler: bool
    """The level ends in a downsampler (down path) or upsampler (up path)."""
    shortcuts: tuple[bool, ...]
    """One entry per resnet: it has a 1x1 convolution on its shortcut, because its two widths differ."""


@dataclass(frozen=True)
class UNetStructure:
    """The blocks of a UNet in order of execution."""

    down: tuple[Stage, ...]
    mid_resnets: int
    """2 in the original models, 1 in SSD-1B, 0 where the middle block was removed."""
    mid_depth: int
    """Transformer blocks of the attention behind the first middle resnet; 0 for none."""
    up: tuple[Stage, ...]
    """``up[0]`` runs first, as in diffusers' ``up_blocks.0``."""
    linear_projection: bool
    """proj_in and proj_out are linear layers (SD2, SDXL), not 1x1 convolutions (SD1)."""
    added_embedding: bool
    """A second embedding beside the timestep (SDXL's size and pooled text): ``label_emb`` or ``add_embedding``."""
    strided: bool = False
    """Single files leave the numbers of removed blocks free: each level counts as three blocks, as in SD1. It is what diffusers'
    own script (convert_diffusers_to_original_stable_diffusion) makes of BK-SDM; files of SDXL's prunings have no gaps."""

    @property
    def transformer_blocks(self) -> int:
        """70 for SDXL, 34 for SSD-1B, 16 for SD1."""
        return sum(sum(s.depths) for s in (*self.down, *self.up)) + self.mid_depth


@dataclass(frozen=True)
class TextStructure:
    """The blocks of a text encoder."""

    kind: TextKind
    """Which single-file spelling it has: CLIP as in transformers, or OpenCLIP with its fused projections."""
    layers: int


def down_stage(*depths: int, sampler: bool = True, widens: bool = False) -> Stage:
    """A down level; `widens` where its first resnet changes the width and so has a shortcut convolution."""
    return Stage(depths, sampler, tuple(widens and i == 0 for i in range(len(depths))))


def up_stage(*depths: int, sampler: bool = True) -> Stage:
    """An up level: every resnet takes a concatenated skip, so each has a shortcut convolution."""
    return Stage(depths, sampler, (True,) * len(depths))
