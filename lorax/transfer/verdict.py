"""What to expect of a transfer, in words, from the weights alone.

Thresholds come from small models (docs: evidence): related bases had a raw cosine of .86 or more per layer type, unrelated ones
.05 or less, and .03 above chance where channels were fitted; where residual blocks are gone a third of the effect was carried,
where only transformer blocks are gone .95, where the width was cut by a quarter .55 to .75.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lorax.checkpoint import Checkpoint
from lorax.layers import Component, LayerId
from lorax.transfer.align import Alignment
from lorax.transfer.types import MIN_COSINE, LayerScore, Verdict

CLOSE_COSINE = 0.8
"""Siblings: a fine-tune, even a long one, keeps its weights this near to its base."""
MAX_LOST_RESIDUALS = 0.15
"""Share of residual blocks that may be in one base only: SSD-1B lacks 1 of SDXL's 17, BK-SDM 9 of SD1's 22."""


@dataclass(frozen=True)
class Judgement:
    """A verdict and the sentence that explains it."""

    verdict: Verdict
    reason: str


def model_cosine(scores: Mapping[LayerId, LayerScore]) -> float | None:
    """ρ̂ of the pair: mean cosine above chance of the matched UNet weights, or of the text encoders' where no UNet layer takes part."""
    unet = [s.relation for i, s in scores.items() if s.relation is not None and i.component == Component.UNET]
    values = unet or [s.relation for s in scores.values() if s.relation is not None]
    return sum(values) / len(values) if values else None


def judge(
    source: Checkpoint | None,
    target: Checkpoint,
    scores: Mapping[LayerId, LayerScore],
    placed: int,
    alignment: Alignment | None = None,
    in_unet: bool = True,
) -> Judgement:
    """The verdict for a pair of bases, from the scores of the layers that take part: those that an adapter touches.

    alignment: the maps by which the scores compare weights, where channels had to be found. in_unet: layers of the UNet take part.
    """
    if placed == 0:
        return Judgement("not transferable", "no layer has a counterpart of its shape in the target")
    if source is None:
        return Judgement("unchecked", "the source base was not given, so only names and shapes could be checked")
    if scores and all(s.same_weights for s in scores.values()) and (alignment is None or alignment.identity):
        return Judgement("same base", "the target's weights equal the source's in every layer that takes part")
    rho = model_cosine(scores)
    if rho is None and alignment is not None:
        rho = alignment.agreement
    if rho is None:
        return Judgement("unchecked", "no layer has weights that can be compared")
    what = "the mean cosine of their weights"
    if alignment is not None and alignment.agreement is not None and not any(i.component == Component.UNET for i in scores):
        rho = min(rho, alignment.agreement)
    if alignment is not None and not alignment.identity:
        what += ", channel by matching channel and above chance,"
    if rho < MIN_COSINE:
        return Judgement("not transferable", f"the two bases are unrelated: {what} is {rho:.2f}, under {MIN_COSINE:.2f}")
    differ, total = residual_blocks(source, target) if in_unet else (0, 0)
    if differ > total * MAX_LOST_RESIDUALS:
        where = f"{differ} of {total} residual blocks are in only one of the two bases"
        return Judgement("weak", f"{where}; on small models about half of the effect was carried")
    widths = first_width(source), first_width(target)
    if in_unet and widths[0] != widths[1]:
        where = f"the target's first level has {widths[1]} channels, the source's {widths[0]}"
        return Judgement("weak", f"{where}; on small models a third to three quarters of the effect were carried")
    if rho < CLOSE_COSINE:
        return Judgement("weak", f"the bases are related but far apart: {what} is {rho:.2f}, under {CLOSE_COSINE:.2f}")
    return Judgement("should work", f"close relatives: {what} is {rho:.2f}")


def first_width(base: Checkpoint) -> int | None:
    """Channels of the UNet's first level; None without a UNet."""
    layer = base.layers.get(LayerId(Component.UNET, "conv_in"))
    return None if layer is None else layer.shape[0]


def residual_blocks(source: Checkpoint, target: Checkpoint) -> tuple[int, int]:
    """How many of the UNets' residual blocks only one of the two bases has, and how many there are in all."""

    def paths(base: Checkpoint) -> set[str]:
        return {layer.spec.unit.path for layer in base.layers.values() if layer.spec.unit.kind == "resnet"}

    a, b = paths(source), paths(target)
    return len(a ^ b), len(a | b)
