"""What to expect of a transfer, in words, from the weights alone.

Thresholds come from small models (docs: evidence): related bases had a raw cosine of .86 or more per layer type, unrelated ones
.05 or less; where residual blocks are gone a third of the effect was carried, where only transformer blocks are gone .95.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lorax.checkpoint import Checkpoint
from lorax.layers import Component, LayerId, Unit
from lorax.transfer.types import MIN_COSINE, LayerScore, Verdict

CLOSE_COSINE = 0.8
"""Siblings: a fine-tune, even a long one, keeps its weights this near to its base."""


@dataclass(frozen=True)
class Judgement:
    """A verdict and the sentence that explains it."""

    verdict: Verdict
    reason: str


def model_cosine(scores: Mapping[LayerId, LayerScore]) -> float | None:
    """ρ̂ of the pair: mean cosine of the matched UNet weights, or of the text encoders' where no UNet layer takes part."""
    unet = [s.cosine for i, s in scores.items() if s.cosine is not None and i.component == Component.UNET]
    values = unet or [s.cosine for s in scores.values() if s.cosine is not None]
    return sum(values) / len(values) if values else None


def judge(source: Checkpoint | None, target: Checkpoint, scores: Mapping[LayerId, LayerScore], placed: int) -> Judgement:
    """The verdict for a pair of bases, from the scores of the layers that the adapter touches."""
    if placed == 0:
        return Judgement("not transferable", "no layer of the adapter has a counterpart of its shape in the target")
    if source is None:
        return Judgement("unchecked", "the source base was not given, so only names and shapes could be checked")
    if scores and all(s.same_weights for s in scores.values()):
        return Judgement("same base", "the target's weights equal the source's in every layer that the adapter touches")
    rho = model_cosine(scores)
    if rho is None:
        return Judgement("unchecked", "none of the adapter's layers has weights that can be compared")
    if rho < MIN_COSINE:
        return Judgement(
            "not transferable", f"the two bases are unrelated: the mean cosine of their weights is {rho:.2f}, under {MIN_COSINE:.2f}"
        )
    lost = lost_units(source, target, ("resnet",))
    if lost:
        return Judgement(
            "weak", f"{len(lost)} residual blocks differ between the two bases; on small models about a third of the effect was carried"
        )
    if rho < CLOSE_COSINE:
        return Judgement(
            "weak", f"the bases are related but far apart: the mean cosine of their weights is {rho:.2f}, under {CLOSE_COSINE:.2f}"
        )
    return Judgement("should work", f"close relatives: the mean cosine of their weights is {rho:.2f}")


def lost_units(source: Checkpoint, target: Checkpoint, kinds: Iterable[str]) -> set[str]:
    """Paths of UNet blocks of these kinds that only one of the two bases has."""
    wanted = set(kinds)

    def paths(base: Checkpoint) -> set[str]:
        units: set[Unit] = {layer.spec.unit for layer in base.layers.values()}
        return {u.path for u in units if u.component == Component.UNET and u.kind in wanted}

    return paths(source) ^ paths(target)
