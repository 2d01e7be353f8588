"""Leading directions of a weight, and how alike two weights are by them (LoRA-X, Eq. 4)."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from lorax.linalg import eigh, qr
from lorax.spectral.values import Leading

K_SIMILARITY = 32
"""Largest rank at which similarity is taken."""
OVERSAMPLING = 8
ITERATIONS = 2


def compute_leading(weight: Tensor, k: int) -> Leading:
    """Leading k_sim singular subspaces of `weight` [out, in] by block power iteration from a fixed start (Halko et al. 2011)."""
    return Leading(leading_rows(weight.T, k), leading_rows(weight, k))


def leading_rows(matrix: Tensor, k: int) -> Tensor:
    """Orthonormal [n, k] near the top-k right singular subspace of `matrix` [m, n].

    The start depends on the shape alone, so equal weights give equal subspaces and close relatives give close ones even where
    the spectrum has no gap at k. It enters through an odd number of products with the weight, so that unrelated weights share
    nothing of it and stay at chance.
    """
    size = min(k + OVERSAMPLING, *matrix.shape)
    start = torch.randn(matrix.shape[0], size, generator=torch.Generator().manual_seed(matrix.shape[0]))
    rows, image = qr(matrix.T @ start.to(matrix))
    for _ in range(ITERATIONS):
        rows, image = qr(matrix.T @ (matrix @ rows))
    return rows @ eigh(image @ image.T)[1].flip(1)[:, :k]


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
