"""A narrow SD2 with few blocks under its genuine single-file names: OpenCLIP's fused projections, linear proj_in."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import torch

from converter.samples import Widths, sample_checkpoint
from lorax.archs import by_name
from lorax.layers import Component
from lorax.structure import Arch, TextStructure, UNetStructure
from lorax.structure.blocks import down_stage, up_stage

WIDTH = 32
"""Of all that the tests touch."""
ARCH: Arch = replace(
    by_name("sd2"),
    name="sd2-custom",
    unet=UNetStructure(
        down=(down_stage(1), down_stage(0, sampler=False, widens=True)),
        mid_resnets=2,
        mid_depth=1,
        up=(up_stage(0, 0), up_stage(1, 0, sampler=False)),
        linear_projection=True,
        added_embedding=False,
    ),
    text=((Component.TE1, TextStructure("openclip", 2)),),
)


def narrow_checkpoint(dtype: torch.dtype = torch.float16) -> dict[str, torch.Tensor]:
    """All tensors of the file, VAE and schedule hinted at."""
    tensors = {name: t.to(dtype) if t.is_floating_point() else t for name, t in _weights().items()}
    tensors["first_stage_model.decoder.conv_in.weight"] = torch.full((4, 4, 3, 3), 0.3).to(dtype)
    tensors["alphas_cumprod"] = torch.linspace(1, 0, 10)
    return tensors


@lru_cache
def _weights() -> dict[str, torch.Tensor]:
    return sample_checkpoint(ARCH, widths=Widths(channels=(WIDTH, WIDTH), text2=WIDTH))
