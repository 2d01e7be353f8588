"""Leading directions of a weight, and how alike two weights are by them (LoRA-X, Eq. 4)."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from lorax.linalg import gram_product, qr
from lorax.spectral.values import Leading

K_SIMILARITY = 32
"""Largest rank at which similarity is taken."""
ITERATIONS = 2


def compute_leading(weight: Tensor, k: int) -> Leading:
    """Leading k_sim singular subspaces of `weight` [out, in] by subspace iteration from a fixed start (Halko et al. 2011, Alg. 4.4).

    The starts depend on the shape alone, so equal weights give equal subspaces and close relatives give close ones even where
    the spectrum has no gap at k. Each side's enters through an odd number of products with the weight, so that unrelated weights
    share nothing of it and stay at chance. Both sides are iterated in the shorter space, so that one product serves the two.
    """
    tall = weight if weight.shape[0] >= weight.shape[1] else weight.T
    left, right = (_start(n, k).to(weight) for n in tall.shape)
    rows = _orthonormal(torch.cat((left.T @ tall, right.T)))
    for _ in range(ITERATIONS):
        rows = _orthonormal(gram_product(rows, tall.T))
    sides = qr((rows[k:] @ tall.T).T)[0], rows[:k].T
    return Leading(*(sides if tall is weight else sides[::-1]))


def _start(n: int, k: int) -> Tensor:
    return torch.randn(n, k, generator=torch.Generator().manual_seed(n))


def _orthonormal(both: Tensor) -> Tensor:
    """Orthonormal rows with the span of each half of [2k, n]."""
    halves = qr(torch.stack(both.chunk(2)).mT)[0].mT
    return torch.cat(tuple(halves))


def similarity_rank(shape: tuple[int, int]) -> int:
    """k_sim = min(32, min(out, in) / 4): small enough that chance stays low; 0 where nothing can be measured."""
    return min(K_SIMILARITY, min(shape) // 4)


def similarity(a: Tensor, b: Tensor) -> float:
    """``Φ = ‖AᵀB‖²_F / k`` of two orthonormal [n, k] (Eq. 4): k/n for unrelated subspaces, 1 for equal ones."""
    return float((a.T @ b).square().sum()) / a.shape[1]


Value = TypeVar("Value", float, Tensor)


def above_chance(value: Value, chance: float) -> Value:
    """``Φ̂ = (Φ − k/n) / (1 − k/n)``: 0 is chance, 1 is identical."""
    return (value - chance) / (1.0 - chance)
