"""The top-k singular triplets of a weight in fp32, checked by what they do to a delta, and in fp64 where that is not enough.

The eigendecomposition of the smaller Gram matrix costs a third of an SVD, but squares the condition: rounding is relative to
the largest eigenvalue. So a steep spectrum first gives up its leading directions, which a few steps of block power iteration
find; a flat one is shifted to zero. What is left is benign, and the check afterwards tells where it was not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from lorax.linalg import eigh, in_double, qr
from lorax.spectral.exact import exact_basis, numerical_rank, row_space, signed
from lorax.spectral.values import Span, SpectralBasis

TOLERANCE = 1e-3
"""Largest error that a basis may bring into a projected delta, relative to its norm."""
MARGIN = 0.5
"""Share of `TOLERANCE` that the estimate from a sample may reach."""
SMALL = 256
"""Sides up to this are decomposed in fp64 at once: milliseconds."""
STEEP = 20.0
"""Effective rank ``(Σλ)² / Σλ²`` under which leading directions are taken out first."""
FLAT = 1e-3
"""Variance of the eigenvalues over their squared mean under which the Gram matrix is made in fp64 and its mean taken away."""
BLOCK, POWERS, LEAK = 40, 2, 1e-3
"""Of the block power iteration: its width, its steps, and the largest share of other directions in what is taken out."""
EDGE = 16
"""Eigenvectors beyond the k-th among which the cut is made anew, with values of full precision."""
PROBES, SAMPLE, LAST = 4, 16, 4
"""Random vectors to estimate the spectrum's shape by; triplets that are checked, in all the range and at its end."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A weight, short side first, and the symmetric matrix whose leading eigenvectors are wanted."""

    matrix: Tensor
    """[n, long], n ≤ long"""
    gram: Tensor
    """[n, n], fp32: the Gram matrix less what was taken out of it."""
    leading: Tensor
    """[n, p]: directions taken out, orthonormal and inside the top-k subspace; p may be 0."""
    shift: float = 0.0
    """Taken from the diagonal in fp64, so that `gram` is all that need be looked at: products with `matrix` know less."""


def compute_basis(weight: Tensor, k: int) -> SpectralBasis:
    """The top-k singular triplets of `weight` [out, in], fp32; fewer where its numerical rank is smaller.

    As a projection they are within `TOLERANCE` of the exact ones.
    """
    return compute_bases([weight], k)[0]


def compute_bases(weights: Sequence[Tensor], k: int) -> list[SpectralBasis]:
    """`compute_basis` of weights of one shape; the decompositions are one batch, which fills a GPU."""
    if min(weights[0].shape) <= max(k, SMALL):
        return [exact_basis(w, k) for w in weights]
    wide = weights[0].shape[0] <= weights[0].shape[1]
    prepared = [prepare(w if wide else w.T, k) for w in weights]
    values, vectors = eigh(torch.stack([p.gram for p in prepared]))
    found = [refine(p, k, values[i], vectors[i], wide) for i, p in enumerate(prepared)]
    return [basis or exact_basis(w, k) for basis, w in zip(found, weights, strict=True)]


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


def prepare(matrix: Tensor, k: int) -> Prepared:
    """Take out what would drown the rest in fp32: the head of a steep spectrum, the mean of a flat one. matrix: [n, long]."""
    rank, variance = spectrum_shape(matrix)
    none = matrix[:, :0]
    if variance < FLAT:
        exact = gram(in_double(matrix))
        mean = float(exact.diagonal().mean())
        exact.diagonal().sub_(mean)
        return Prepared(matrix, exact.to(matrix), none, mean)
    if rank >= STEEP:
        return Prepared(matrix, gram(matrix), none)
    leading, image = leading_directions(matrix, k)
    return Prepared(matrix, gram(torch.addmm(matrix, leading, image, alpha=-1)), leading)


def spectrum_shape(matrix: Tensor) -> tuple[float, float]:
    """Effective rank ``(Σλ)² / Σλ²`` of the Gram matrix [n, n] of `matrix`, and the variance of its λ over their squared mean.

    By a few random vectors, fixed by n (Hutchinson 1989), each with its own mean λ, so that equal λ have no variance.
    """
    probes = torch.randn(PROBES, matrix.shape[0], generator=torch.Generator().manual_seed(matrix.shape[0])).to(matrix)
    image = (probes @ matrix) @ matrix.T
    lengths, means, squares = ((x * y).sum(1) for x, y in ((probes, probes), (probes, image), (image, image)))
    if not float(squares.sum()):
        return float(matrix.shape[0]), 0.0
    variance = float((squares * lengths / means.square()).mean()) - 1
    return float(means.mean().square() / squares.mean()), variance


def leading_directions(matrix: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Orthonormal directions [n, p] that lie in the top-k left singular subspace of `matrix` but for `LEAK`, and their image
    [p, long] in `matrix`; they need not be singular vectors.

    Block power iteration (Halko et al. 2011). p is as large as the spectrum's decay within the block warrants.
    """
    start = torch.randn(matrix.shape[1], BLOCK, generator=torch.Generator().manual_seed(matrix.shape[1])).to(matrix)
    rows, _ = qr(matrix @ start)
    for _ in range(POWERS):
        rows, _ = qr(matrix @ (matrix.T @ rows))
    image = rows.T @ matrix
    values, vectors = eigh(image @ image.T)
    values, vectors = values.flip(0), vectors.flip(1)
    p = int(((values[-1].clamp_min(0) / values) ** (POWERS + 0.5) <= LEAK).sum())
    turn = vectors[:, : min(p, k // 2)]
    return rows @ turn, turn.T @ image


def gram(rows: Tensor, blocks: int = 4) -> Tensor:
    """``W Wᵀ``, computed by blocks of its lower half."""
    n = rows.shape[0]
    product = rows.new_empty(n, n)
    for start, stop in pairwise(n * i // blocks for i in range(blocks + 1)):
        block = rows[start:stop] @ rows[:stop].T
        product[start:stop, :stop] = block
        product[:stop, start:stop] = block.T
    return product


def refine(prepared: Prepared, k: int, values: Tensor, vectors: Tensor, wide: bool) -> SpectralBasis | None:
    """The triplets from the eigenvectors [n, n] of `prepared.gram`, resolved within their span; None where the check fails.

    values: eigenvalues, ascending; as many of them are zero as directions were taken out.
    """
    matrix, taken = prepared.matrix, prepared.leading.shape[1]
    far = slice(taken, len(values) - min(k + EDGE, len(values)) + taken)
    head = torch.cat([prepared.leading, vectors[:, far.stop :].flip(1)], 1)
    image = head.T @ matrix
    within = head.T @ (prepared.gram @ head) if prepared.shift else gram(image)
    squares, turn = eigh(in_double(within))
    squares, turn = squares.flip(0).to(matrix), turn.flip(1).to(matrix)
    s = (squares + prepared.shift).clamp_min(0).sqrt()
    if not bool(torch.isfinite(s).all()) or numerical_rank(s) < k:
        return None
    short, long = head @ turn, image.T @ turn[:, :k]
    others = (short[:, k:], squares[k:]), (vectors[:, far], values[far])
    if error_estimate(prepared, short[:, :k], long, squares[:k], others) > MARGIN * TOLERANCE:
        return None
    return signed(short[:, :k], s[:k], long / s[:k], wide)


def error_estimate(prepared: Prepared, short: Tensor, long: Tensor, squares: Tensor, others: Iterable[tuple[Tensor, Tensor]]) -> float:
    """The relative error that the subspace `short` [n, k] brings into a projected random delta, both sides counted.

    To first order u_i lacks ``Σ_j x_j (x_jᵀ R_i) / (λ_i − λ_j)`` over the other eigenvectors x_j with their eigenvalues
    (`others`), where ``R_i = (W Wᵀ − λ_i) u_i``; ``‖P̂ g − P g‖² = 2 Σ_i ‖lack_i‖²`` for a random g with ``‖P g‖² = k``.
    long: ``Wᵀ u_i``, [long, k]. squares: the λ_i, less the shift. Taken from a sample of the u_i, and from each of the last
    few, which lack most.
    """
    k = short.shape[1]
    size, few = min(SAMPLE, k), min(LAST, k)
    chosen = torch.cat([torch.arange(size) * k // size + k // (2 * size), torch.arange(k - few, k)]).to(short.device)
    u, squares = short[:, chosen], squares[chosen]
    applied = prepared.gram @ u if prepared.shift else prepared.matrix @ long[:, chosen]
    residual = applied - u * squares
    lack = torch.stack([((x.T @ residual) / (squares - values[:, None])).square().sum(0) for x, values in others]).sum(0)
    return 2.0 * float(lack[:size].mean() + lack[size:].sum() / k) ** 0.5
