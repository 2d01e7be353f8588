"""The blocks of a UNet in the words of diffusers' configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorax.structure.blocks import UNetStructure

_MIDDLE: Mapping[tuple[int, bool], str | None] = {
    (2, True): "UNetMidBlock2DCrossAttn",
    (1, False): "UNetMidBlock2D",
    (0, False): None,
}
"""(resnets, has an attention) → diffusers' class."""


def diffusers_blocks(unet: UNetStructure) -> dict[str, Any]:
    """Arguments of diffusers' UNet2DConditionModel that follow from the blocks alone; widths are beside them.

    ValueError for a middle block that diffusers has no class for.
    """
    middle = unet.mid_resnets, unet.mid_depth > 0
    if middle not in _MIDDLE:
        raise ValueError(f"diffusers has no middle block of {unet.mid_resnets} residual blocks and {unet.mid_depth} transformer blocks")
    counts = [len(stage.depths) for stage in unet.down]
    config: dict[str, Any] = {
        "layers_per_block": counts[0] if len(set(counts)) == 1 else counts,
        "down_block_types": ["CrossAttnDownBlock2D" if any(stage.depths) else "DownBlock2D" for stage in unet.down],
        "mid_block_type": _MIDDLE[middle],
        "up_block_types": ["CrossAttnUpBlock2D" if any(stage.depths) else "UpBlock2D" for stage in unet.up],
        "use_linear_projection": unet.linear_projection,
        "transformer_layers_per_block": [list(stage.depths) if any(stage.depths) else 1 for stage in unet.down],
        "reverse_transformer_layers_per_block": [list(stage.depths) if any(stage.depths) else 1 for stage in unet.up],
    }
    if unet.mid_depth:
        config["transformer_layers_per_block"][-1] = unet.mid_depth
    return config
