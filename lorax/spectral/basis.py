"""The top-k singular triplets of a weight in fp32, checked by what they do to a delta, and in fp64 where that is not enough.

The eigendecomposition of the smaller Gram matrix costs a third of an SVD, but squares the condition. `lorax.spectral.prepared`
makes what is left benign, and the check afterwards tells where it was not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from lorax.linalg import eigh, in_double
from lorax.spectral.exact import exact_basis, numerical_rank, row_space, signed
from lorax.spectral.prepared import Prepared, gram, prepare
from lorax.spectral.values import Span, SpectralBasis

TOLERANCE = 1e-3
"""Largest error that a basis may bring into a projected delta, relative to its norm."""
MARGIN = 0.5
"""Share of `TOLERANCE` that the estimate from a sample may reach."""
SMALL = 256
"""Sides up to this are decomposed in fp64 at once: milliseconds."""
EDGE = 16
"""Eigenvectors beyond the k-th among which the cut is made anew, with values of full precision."""
SAMPLE, LAST = 16, 4
"""Triplets that are checked, in all the range and at its end."""


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
    values, vectors = eigh(prepared[0].gram[None] if len(prepared) == 1 else torch.stack([p.gram for p in prepared]))
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
    return signed(short[:, :k], s[:k], long, wide)


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
    applied = prepared.gram @ u if prepared.shift else (long.T[chosen] @ prepared.matrix.T).T
    residual = applied - u * squares
    lack = torch.stack([((x.T @ residual) / (squares - values[:, None])).square().sum(0) for x, values in others]).sum(0)
    return 2.0 * float(lack[:size].mean() + lack[size:].sum() / k) ** 0.5
