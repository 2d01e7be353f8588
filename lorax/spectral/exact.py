"""Bases in fp64: for small weights, for those whose every direction is wanted, and where fp32 is found not to be enough."""

from __future__ import annotations

import torch
from torch import Tensor

from lorax.linalg import eigh, in_double
from lorax.spectral.values import SpectralBasis

RANK_TOLERANCE = 1e-5
"""Singular values under this share of the largest count as zero: they are rounding of the stored weight."""


def exact_basis(weight: Tensor, k: int) -> SpectralBasis:
    """The top-k singular triplets of `weight` [out, in]; fewer where its numerical rank is smaller.

    By the eigendecomposition of the smaller Gram matrix in fp64. The squared condition is harmless there: directions are
    resolved down to `RANK_TOLERANCE` of the largest singular value, and fp16 or bf16 weights hold nothing below.
    """
    wide = weight.shape[0] <= weight.shape[1]
    matrix = in_double(weight if wide else weight.T)
    values, vectors = eigh(matrix @ matrix.T)
    s = values.flip(0).clamp_min(0).sqrt()
    n = min(k, numerical_rank(s))
    s, short = s[:n], vectors.flip(1)[:, :n]
    return signed(short, s, matrix.T @ short, wide)


def numerical_rank(s: Tensor) -> int:
    """How many of the singular values `s`, descending, are more than rounding."""
    return int((s > s[0] * RANK_TOLERANCE).sum())


def signed(short: Tensor, s: Tensor, long: Tensor, wide: bool) -> SpectralBasis:
    """Triplets in fp32 with canonical signs. long: ``Wᵀ u_i`` of the u_i in `short`; wide: the short side is the left one."""
    high, low = torch.maximum(short.amax(0), long.amax(0) / s), torch.minimum(short.amin(0), long.amin(0) / s)
    sign = torch.where(high >= -low, 1.0, -1.0).to(s)
    short, long = (short * sign).float(), (long * (sign / s)).float()
    return SpectralBasis(short, s.float(), long) if wide else SpectralBasis(long, s.float(), short)


def row_space(matrix: Tensor) -> Tensor | None:
    """An orthonormal basis [n, m] of the rows of `matrix` [m, n], m ≤ n; None where its rows are not independent.

    By Cholesky QR in fp64: rows count as dependent when a singular value falls under `RANK_TOLERANCE` of the Frobenius norm,
    which also bounds the loss of orthogonality by about 1e-6.
    """
    rows = in_double(matrix)
    gram = rows @ rows.T
    shifted = gram - RANK_TOLERANCE**2 * gram.trace() * torch.eye(gram.shape[0], dtype=gram.dtype, device=gram.device)
    if int(torch.linalg.cholesky_ex(shifted).info) != 0:
        return None
    return torch.linalg.solve_triangular(torch.linalg.cholesky(gram), rows, upper=False).T.float()
