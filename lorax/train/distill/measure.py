"""How much of an adapter's effect another model shows."""

from __future__ import annotations

from torch import Tensor

from lorax.linalg import cosine

GOOD, FAIR = 0.8, 0.5
"""Effect cosines. On seven small pairs .96, .77, .50 and .25 went with .95, .76, .55 and .34 of the gain recovered; not tuned."""


def in_words(cosine: float | None) -> str:
    """What an effect cosine means; empty where there is none."""
    if cosine is None:
        return ""
    if cosine >= GOOD:
        return "the target shows the adapter's effect"
    return "the target shows part of the adapter's effect" if cosine >= FAIR else "the target hardly shows the adapter's effect"


def effect_cosine(source_change: Tensor, target_change: Tensor) -> float:
    """Cosine between the change that an adapter makes to the source's prediction and the one it makes to the target's.

    Both [n, c, h, w], at the same noisy samples of the source's own. 1 where the effect is the same up to its strength, 0 where
    it has nothing to do with it, or is none. On seven small pairs it put the targets in the order of what a transfer recovered.
    """
    return cosine(source_change, target_change)


def missed_share(effect: Tensor, change: Tensor) -> float:
    """``‖change − effect‖² / ‖effect‖²``: 0 where the target shows the whole effect, 1 where it shows none, more where it shows another."""
    total = float(effect.double().square().sum())
    return float((change.double() - effect.double()).square().sum()) / total if total else 0.0


def relative_strength(effect: Tensor, change: Tensor) -> float:
    """``‖change‖ / ‖effect‖``: how strong the change is beside the source's."""
    total = float(effect.double().square().sum())
    return (float(change.double().square().sum()) / total) ** 0.5 if total else 0.0
