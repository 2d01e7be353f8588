"""A weight's Gram matrix, made so that fp32 can tell its eigenvectors apart.

Squaring halves the digits: rounding is relative to the largest eigenvalue. So a steep spectrum first gives up its leading directions,
which a few steps of block power iteration find, and a flat one is shifted to zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from lorax.linalg import COLUMNS, eigh, gram_product, in_double, qr

STEEP = 20.0
"""Effective rank ``(Σλ)² / Σλ²`` under which leading directions are taken out first."""
FLAT = 1e-3
"""Variance of the eigenvalues over their squared mean under which the Gram matrix is made in fp64 and its mean taken away."""
BLOCK, POWERS, LEAK = 48, 2, 3e-3
"""Of the block power iteration: its width, its steps, and the largest share of other directions that the sketch may leave in
what is taken out; the steps in the whole weight make it far smaller."""
SKETCHED = 4
"""The block power iteration is made in a sketch of n / `SKETCHED` columns."""
PROBES = 4
"""Random vectors to estimate the spectrum's shape by."""
BLOCKS = 8
"""Row blocks of a Gram matrix, of which the lower half is made."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A weight, short side first, and the symmetric matrix whose leading eigenvectors are wanted."""

    matrix: Tensor
    """[n, long], n ≤ long"""
    gram: Tensor
    """[n, n], fp32: lower half of the Gram matrix less what was taken out of it; the whole of it where it was shifted."""
    leading: Tensor
    """[n, p]: directions taken out, orthonormal and inside the top-k subspace; p may be 0."""
    shift: float = 0.0
    """Taken from the diagonal in fp64, so that `gram` is all that need be looked at: products with `matrix` know less."""


def prepare(matrix: Tensor, k: int) -> Prepared:
    """Take out what would drown the rest in fp32: the head of a steep spectrum, the mean of a flat one. matrix: [n, long]."""
    rank, variance = spectrum_shape(matrix)
    none = matrix[:, :0]
    if variance < FLAT:
        exact = gram(in_double(matrix))
        exact = exact.tril() + exact.tril(-1).T
        mean = float(exact.diagonal().mean())
        exact.diagonal().sub_(mean)
        return Prepared(matrix, exact.to(matrix), none, mean)
    leading = none if rank >= STEEP else leading_directions(matrix, k)
    return Prepared(matrix, gram(matrix, leading), leading)


def spectrum_shape(matrix: Tensor) -> tuple[float, float]:
    """Effective rank ``(Σλ)² / Σλ²`` of the Gram matrix [n, n] of `matrix`, and the variance of its λ over their squared mean.

    By a few random vectors, fixed by n (Hutchinson 1989), each with its own mean λ, so that equal λ have no variance.
    """
    probes = torch.randn(PROBES, matrix.shape[0], generator=torch.Generator().manual_seed(matrix.shape[0])).to(matrix)
    image = gram_product(probes, matrix)
    lengths, means, squares = ((x * y).sum(1) for x, y in ((probes, probes), (probes, image), (image, image)))
    if not float(squares.sum()):
        return float(matrix.shape[0]), 0.0
    variance = float((squares * lengths / means.square()).mean()) - 1
    return float(means.mean().square() / squares.mean()), variance


def leading_directions(matrix: Tensor, k: int) -> Tensor:
    """Orthonormal directions [n, p] that lie in the top-k left singular subspace of `matrix` but for `LEAK`; they need not be
    singular vectors.

    Block power iteration (Halko et al. 2011) in a sketch; what it finds has as many steps in the whole weight. p is as large as
    the spectrum's decay within the block warrants.
    """
    part = sketch(matrix, matrix.shape[0] // SKETCHED)
    start = torch.randn(BLOCK, part.shape[1], generator=torch.Generator().manual_seed(part.shape[1])).to(part)
    found = iterated(orthonormal(start @ part.T), part)
    values, vectors = eigh(gram(found.T @ part))
    values, vectors = values.flip(0), vectors.flip(1)
    p = int(((values[-1].clamp_min(0) / values) ** (POWERS + 0.5) <= LEAK).sum())
    return iterated(found @ vectors[:, : min(p, k // 2)], matrix)


def sketch(matrix: Tensor, columns: int) -> Tensor:
    """``W Ω`` [n, columns]: each column of W goes into one of so many sums, with a random sign (Clarkson and Woodruff 2013).

    So a single large column is not missed, as it would be in a sample.
    """
    signs = torch.randn(matrix.shape[1], generator=torch.Generator().manual_seed(matrix.shape[1])).sign().to(matrix)
    sums = torch.zeros_like(matrix[:, :columns])
    for part, sign in zip(matrix.split(columns, 1), signs.split(columns), strict=True):
        sums[:, : len(sign)].addcmul_(part, sign)
    return sums


def iterated(columns: Tensor, matrix: Tensor) -> Tensor:
    """Orthonormal columns [n, b] after `POWERS` products with ``W Wᵀ``."""
    for _ in range(POWERS):
        columns = orthonormal(gram_product(columns.T, matrix))
    return columns


def orthonormal(rows: Tensor) -> Tensor:
    """Orthonormal columns [n, b] that span the rows [b, n]."""
    return qr(rows.T)[0]


def gram(rows: Tensor, without: Tensor | None = None) -> Tensor:
    """The lower half of ``W Wᵀ`` [n, n], what lies above undefined; rows: W [n, long].

    without: orthonormal [n, p], taken out of W before it is squared.
    """
    n = rows.shape[0]
    product = rows.new_zeros(n, n)
    for part in rows.split(COLUMNS, 1):
        if without is not None and without.numel():
            part = part.clone().addmm_(without, without.T @ part, alpha=-1)
        for start, stop in pairwise(n * i // BLOCKS for i in range(BLOCKS + 1)):
            product[start:stop, :stop].addmm_(part[start:stop], part[:stop].T)
    return product
