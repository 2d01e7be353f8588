"""Whether two bases draw in the same latent space, from their files alone: the one thing that distillation cannot bridge."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from lorax.checkpoint import Checkpoint
from lorax.checkpoint.sources import open_folder
from lorax.errors import LoraxError, NotTransferable
from lorax.layers import Component, LayerId
from lorax.linalg import cosine
from lorax.safefile import TensorFile, open_tensors

ANCHORS = ("encoder.conv_in.weight", "encoder.conv_out.weight", "quant_conv.weight")
"""Tensors of the VAE's encoder that have these names in both layouts. The encoder is what defines the space; decoders are swapped."""
PREFIXES = ("first_stage_model.", "vae.", "")
SCALES = {"sdxl": 0.13025}
SD_SCALE = 0.18215
MIN_COSINE = 0.9
"""Encoders less alike than this have latents that mean different things."""
_CONV_IN, _CONV_OUT = LayerId(Component.UNET, "conv_in"), LayerId(Component.UNET, "conv_out")


@dataclass(frozen=True, eq=False)
class LatentSpace:
    """What a UNet's inputs and outputs are."""

    channels: tuple[int, int]
    """In and out of the UNet"""
    scale: float
    """Latents are the encoder's output times this."""
    anchors: Mapping[str, Tensor]
    """Weights of the encoder"""


def read_latent_space(base: Checkpoint, config: Path | None) -> LatentSpace:
    """Of a whole base. LoraxError where it has no VAE. config: diffusers folder that a single file is built by."""
    channels = base.layer(_CONV_IN).shape[1], base.layer(_CONV_OUT).shape[0]
    path = base.paths[0]
    with ExitStack() as stack:
        file = _vae_file(base, stack)
        anchors = {name: found for name in ANCHORS if (found := _tensor(file, name)) is not None} if file else {}
    if ANCHORS[0] not in anchors:
        raise LoraxError(
            f"'{base.name}' has no VAE that we know, so nothing says which latents it draws: give a whole checkpoint or folder."
        )
    folder = path if path.is_dir() else config
    return LatentSpace(channels, _scale(folder, base.arch.family), anchors)


def check_same_space(source: LatentSpace, target: LatentSpace, force: bool = False) -> list[str]:
    """Notes on small differences. NotTransferable where latents of one mean nothing to the other; `force` overrides weights alone."""
    for title, space in (("source", source), ("target", target)):
        if space.channels[0] != space.channels[1]:
            raise NotTransferable(
                f"the UNet of the {title} takes {space.channels[0]} channels and gives {space.channels[1]}: inpainting and editing models "
                "need more than latents and are not distilled; give the ordinary base"
            )
    if source.channels != target.channels or abs(source.scale - target.scale) > 0.01 * target.scale:
        raise NotTransferable(
            f"the two bases draw in different latent spaces ({source.channels[0]} channels scaled by {source.scale:g}, "
            f"{target.channels[0]} by {target.scale:g}): distillation needs the same VAE in both"
        )
    worst = min((_alike(source.anchors[name], tensor) for name, tensor in target.anchors.items() if name in source.anchors), default=0.0)
    if worst < MIN_COSINE and not force:
        raise NotTransferable(
            f"the VAE encoders of the two bases differ (cosine {worst:.2f}, under {MIN_COSINE:g}), so their latents mean different things: "
            "give bases with the same VAE, or --force"
        )
    return [f"the VAE encoders are not equal: cosine {worst:.3f}"] if worst < 0.999 else []


def check_predictions(source: Checkpoint, target: Checkpoint) -> list[str]:
    """Notes on what has to be converted. NotTransferable for EDM models, whose noise is scaled in another way."""
    for base in (source, target):
        if base.prediction_type == "edm":
            raise NotTransferable(f"'{base.name}' is an EDM model; only models that predict the noise or v are distilled")
    kinds = [base.prediction_type or "epsilon" for base in (source, target)]
    if kinds[0] == kinds[1]:
        return []
    return [f"the source predicts {kinds[0]}, the target {kinds[1]}: the effect is converted at equal noise"]


def _vae_file(base: Checkpoint, stack: ExitStack) -> TensorFile | None:
    path = base.paths[0]
    if not path.is_dir():
        return stack.enter_context(open_tensors(path))
    return stack.enter_context(open_folder(path / "vae")) if (path / "vae").is_dir() else None


def _tensor(file: TensorFile, name: str) -> Tensor | None:
    found = next((prefix + name for prefix in PREFIXES if prefix + name in file.tensors), None)
    return None if found is None else file.read(found).float().clone()


def _scale(folder: Path | None, family: str) -> float:
    default = SCALES.get(family, SD_SCALE)
    if folder is None:
        return default
    try:
        config: Any = json.loads((folder / "vae" / "config.json").read_text(encoding="utf-8"))
        return float(config.get("scaling_factor", SD_SCALE))
    except (OSError, ValueError, TypeError, AttributeError):
        return default


def _alike(a: Tensor, b: Tensor) -> float:
    return cosine(a, b) if a.shape == b.shape else 0.0
