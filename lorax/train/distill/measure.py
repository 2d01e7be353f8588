"""How much of an adapter's effect another model shows."""

from __future__ import annotations

from torch import Tensor

from lorax.linalg import cosine


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
