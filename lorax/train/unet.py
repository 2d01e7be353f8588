"""The UNet of a pruned single file, built from the file alone: its blocks and widths say its configuration.

diffusers looks up the configuration of a single file by the kind of model, and finds the one of the unpruned model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorax.archs import family_parent
from lorax.checkpoint import Checkpoint
from lorax.errors import LoraxError
from lorax.layers import Component, LayerId
from lorax.structure import UNetStructure, diffusers_blocks, parse_unet
from lorax.train.packages import load_package

HEADS, HEAD_WIDTH, GROUPS = 8, 64, 32
"""Attention heads of SD1 at every width, width of a head in SD2 and SDXL, groups of a norm; no weight tells them."""
SIDES = {("sd1", None): 64, ("sd2", None): 64, ("sd2", "v"): 96, ("sdxl", None): 128}
"""(family, prediction type; None: any other) → side of the latents that the model was made for"""
SIZES = 6
"""Numbers of SDXL's second embedding (original size, crop, target size), beside the pooled text of its second encoder"""


def is_pruned(base: Checkpoint, config: Path | None) -> bool:
    """Whether the UNet has other blocks than diffusers would expect: those of `config`, or else those of the family's parent."""
    expected = family_parent(base.arch.family).unet if config is None else _described(config)
    return None not in (expected, base.arch.unet) and _blocks(expected) != _blocks(base.arch.unet)


def build_unet(base: Checkpoint, dtype: torch.dtype) -> Any:
    """diffusers' UNet2DConditionModel with the file's weights in `dtype`. LoraxError where diffusers has no such model."""
    diffusers = load_package("diffusers")
    stored = dict(_weights(base, dtype))
    try:
        with torch.device("meta"):
            unet = diffusers.UNet2DConditionModel(**unet_config(base))
        unet.load_state_dict(stored, assign=True)
    except (ValueError, RuntimeError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise LoraxError(
            f"diffusers cannot build the pruned UNet of '{base.name}' from its blocks and widths ({reason:.200}): give its diffusers folder"
            " instead of the single file."
        ) from None
    return unet.eval()


def unet_config(base: Checkpoint) -> dict[str, Any]:
    """Arguments of diffusers' UNet2DConditionModel, read off the file. ValueError where they are not of a family that is known."""
    family, structure = base.arch.family, base.arch.unet
    if structure is None:
        raise ValueError("it has no UNet")
    channels = [_shape(base, f"down_blocks.{level}.resnets.0.conv1")[0] for level in range(len(structure.down))]
    if any(width % (GROUPS if family == "sd1" else HEAD_WIDTH) for width in channels):
        raise ValueError(f"{channels} channels: how many heads and groups they have is not in the file")
    config = diffusers_blocks(structure) | {
        "sample_size": SIDES.get((family, base.prediction_type), SIDES[family, None]),
        "in_channels": _shape(base, "conv_in")[1],
        "out_channels": _shape(base, "conv_out")[0],
        "block_out_channels": channels,
        "norm_num_groups": GROUPS,
        "cross_attention_dim": next(layer.shape[1] for i, layer in base.layers.items() if i.path.endswith("attn2.to_k")),
        "attention_head_dim": HEADS if family == "sd1" else [width // HEAD_WIDTH for width in channels],
        "upcast_attention": family == "sd2",
    }
    if structure.added_embedding:
        added, pooled = _shape(base, "add_embedding.linear_1")[1], _shape(base, "text_model.final_layer_norm", Component.TE2)[0]
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": (added - pooled) // SIZES,
            "projection_class_embeddings_input_dim": added,
        }
    return config


def _weights(base: Checkpoint, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Names as diffusers has them, one layer at a time."""
    for layer in base.layers.values():
        if layer.id.component == Component.UNET:
            yield f"{layer.spec.diffusers.module}.weight", base.read(layer).to(dtype)
            if (bias := base.read_bias(layer)) is not None:
                yield f"{layer.spec.diffusers.module}.bias", bias.to(dtype)


def _shape(base: Checkpoint, path: str, component: Component = Component.UNET) -> tuple[int, ...]:
    return base.layer(LayerId(component, path)).shape


def _described(config: Path) -> UNetStructure | None:
    """The blocks of the UNet in a diffusers folder; None where it says none, which diffusers will complain of."""
    diffusers = load_package("diffusers")
    try:
        said = json.loads((config / "unet" / "config.json").read_text(encoding="utf-8"))
        with torch.device("meta"):
            unet = diffusers.UNet2DConditionModel.from_config(said)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    parsed = parse_unet({name: tuple(p.shape) for name, p in unet.named_parameters()})
    return parsed[0] if parsed else None


def _blocks(structure: UNetStructure | None) -> UNetStructure | None:
    """Without what only single files have."""
    return structure and replace(structure, strided=False)
