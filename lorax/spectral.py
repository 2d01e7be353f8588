"""Singular subspaces of a base weight ``W = U S Vᵀ``: what LoRA-X lives in (LoRA-X, arXiv 2501.16559, Sec. 3).

Three values for three needs, each computed at a rank of its own:

- `SpectralBasis`: resolved, ordered and signed, to rebuild or train a native adapter;
- `Span`: the same subspace without order, all that a projection onto a target needs;
- `Leading`: a few leading directions by randomised iteration, to tell how alike two weights are.

The result depends on the weight and the rank alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from lorax.linalg import Factors

RANK_TOLERANCE = 1e-5
"""Singular values under this share of the largest count as zero: they are rounding of the stored weight."""
K_SIMILARITY = 32
"""Largest rank at which similarity is taken."""
OVERSAMPLING = 8
ITERATIONS = 2


@dataclass(frozen=True, eq=False)
class SpectralBasis:
    """The top-k singular triplets of a weight, S descending.

    Signs are canonical: the entry of largest magnitude of the concatenation (u_i; v_i) is positive, so that
    ``basis(W)`` and ``basis(Wᵀ)`` are each other's transpose.
    """

    U: Tensor
    """[out, k], orthonormal columns"""
    S: Tensor
    """[k]"""
    V: Tensor
    """[in, k], orthonormal columns"""

    @property
    def k(self) -> int:
        return self.S.shape[0]

    def sliced(self, k: int) -> SpectralBasis:
        """The leading k of this basis."""
        return SpectralBasis(self.U[:, :k], self.S[:k], self.V[:, :k])


@dataclass(frozen=True, eq=False)
class Span:
    """Orthonormal bases of the top-k left and right singular subspaces; None stands for the whole space.

    Law: projecting twice is projecting once, and the rank of the delta never grows.
    """

    left: Tensor | None
    """[out, k], or None where ``U Uᵀ = I``"""
    right: Tensor | None
    """[in, k], or None where ``V Vᵀ = I``"""

    def project(self, delta: Factors) -> Factors:
        """``U Uᵀ ΔW V Vᵀ`` (Eq. 3) on the factors of ΔW: the [out, in] delta is never formed."""
        up = delta.up if self.left is None else self.left @ (self.left.T @ delta.up)
        down = delta.down if self.right is None else (delta.down @ self.right) @ self.right.T
        return Factors(up, down)

    def project_dense(self, delta: Tensor) -> Factors | Tensor:
        """Eq. 3 on a dense delta [out, in]: factors of rank k, or a dense delta where both sides are the whole space."""
        if self.left is not None:
            coordinates = self.left.T @ delta
            return Factors(self.left, coordinates if self.right is None else (coordinates @ self.right) @ self.right.T)
        return delta if self.right is None else Factors(delta @ self.right, self.right.T)


@dataclass(frozen=True, eq=False)
class Leading:
    """Approximate leading singular subspaces at k_sim, for similarity only."""

    U: Tensor
    """[out, k_sim]"""
    V: Tensor
    """[in, k_sim]"""


def compute_basis(weight: Tensor, k: int) -> SpectralBasis:
    """The top-k singular triplets of `weight` [out, in]; fewer where its numerical rank is smaller.

    By the eigendecomposition of the smaller Gram matrix in fp64. The squared condition is harmless there: directions are
    resolved down to `RANK_TOLERANCE` of the largest singular value, and fp16 or bf16 weights hold nothing below.
    """
    wide = weight.shape[0] <= weight.shape[1]
    matrix = (weight if wide else weight.T).double()
    values, vectors = torch.linalg.eigh(matrix @ matrix.T)
    s = values.flip(0).clamp_min(0).sqrt()
    n = min(k, int((s > s[0] * RANK_TOLERANCE).sum()))
    s, short = s[:n], vectors.flip(1)[:, :n]
    long = (matrix.T @ short) / s
    U, V = (short, long) if wide else (long, short)
    both = torch.cat([U, V])
    sign = both.gather(0, both.abs().argmax(0, keepdim=True)).sign()
    return SpectralBasis((U * sign).float(), s.float(), (V * sign).float())


def compute_span(weight: Tensor, k: int) -> Span:
    """The span of the top-k singular subspaces of `weight` [out, in].

    Where k reaches the full rank of the weight, the short side is the whole space and the long side is an orthonormal row
    (or column) space: no decomposition into singular vectors is needed.
    """
    out, n_in = weight.shape
    if k >= min(out, n_in):
        whole = row_space(weight if out <= n_in else weight.T)
        if whole is not None:
            long = None if out == n_in else whole
            return Span(None, long) if out <= n_in else Span(long, None)
    basis = compute_basis(weight, k)
    return Span(basis.U, basis.V)


def row_space(matrix: Tensor) -> Tensor | None:
    """An orthonormal basis [n, m] of the rows of `matrix` [m, n], m ≤ n; None where its rows are not independent.

    By Cholesky QR in fp64: rows count as dependent when a singular value falls under `RANK_TOLERANCE` of the Frobenius norm,
    which also bounds the loss of orthogonality by about 1e-6.
    """
    rows = matrix.double()
    gram = rows @ rows.T
    shifted = gram - RANK_TOLERANCE**2 * gram.trace() * torch.eye(gram.shape[0], dtype=gram.dtype, device=gram.device)
    if int(torch.linalg.cholesky_ex(shifted).info) != 0:
        return None
    return torch.linalg.solve_triangular(torch.linalg.cholesky(gram), rows, upper=False).T.float()


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
    rows = torch.linalg.qr(matrix.T @ start.to(matrix)).Q
    for _ in range(ITERATIONS):
        rows = torch.linalg.qr(matrix.T @ (matrix @ rows)).Q
    image = matrix @ rows
    vectors = torch.linalg.eigh(image.T @ image).eigenvectors
    return rows @ vectors.flip(1)[:, :k]


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
