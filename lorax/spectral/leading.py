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
ROWS = 512
"""Of a weight, that go together: they stay in a core's cache from one product to the next."""


def compute_leading(weight: Tensor, k: int) -> Leading:
    """Leading k_sim singular subspaces of `weight` [out, in] by block power iteration from a fixed start (Halko et al. 2011).

    The starts depend on the shape alone, so equal weights give equal subspaces and close relatives give close ones even where
    the spectrum has no gap at k. Each side's enters through an odd number of products with the weight, so that unrelated weights
    share nothing of it and stay at chance.
    """
    if weight.shape[0] < weight.shape[1]:
        right, left = _leading_of_tall(weight.T, k)
    else:
        left, right = _leading_of_tall(weight, k)
    return Leading(left, right)


def _leading_of_tall(matrix: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Orthonormal [m, k] and [n, k] near the top-k left and right singular subspaces of `matrix` [m, n], m ≥ n.

    Both are iterated in the short space, side by side, so that one pass over the matrix serves the two.
    """
    size = min(k + OVERSAMPLING, matrix.shape[1])
    left, right = (_start(n, size, matrix) for n in matrix.shape)
    rows, image = qr(torch.stack((matrix.T @ left, right)))
    for _ in range(ITERATIONS):
        rows, image = qr(_gram_times(matrix, rows))
    return _top(*qr(matrix @ rows[1]), k), _top(rows[0], image[0], k)


def _start(n: int, size: int, like: Tensor) -> Tensor:
    return torch.randn(n, size, generator=torch.Generator().manual_seed(n)).to(like)


def _gram_times(matrix: Tensor, blocks: Tensor) -> Tensor:
    """``MᵀM B`` for blocks [b, n, s], in one pass over M."""
    side_by_side = torch.cat(tuple(blocks), dim=1)
    rows = ROWS if matrix.device.type == "cpu" else matrix.shape[0]
    product = torch.zeros_like(side_by_side)
    for part in matrix.split(rows):
        product.addmm_(part.T, part @ side_by_side)
    return torch.stack(product.chunk(len(blocks), dim=1))


def _top(rows: Tensor, image: Tensor, k: int) -> Tensor:
    """The k leading directions of the span of `rows` [n, s], where `image` [s, s] says how they weigh."""
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
