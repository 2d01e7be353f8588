"""Singular subspaces of a base weight ``W = U S Vᵀ``: what LoRA-X lives in (LoRA-X, arXiv 2501.16559, Sec. 3).

Three values for three needs, each computed at a rank of its own:

- `SpectralBasis`: resolved, ordered and signed, to rebuild or train a native adapter;
- `Span`: the same subspace without order, all that a projection onto a target needs;
- `Leading`: a few leading directions by randomised iteration, to tell how alike two weights are.

The result depends on the weight and the rank alone.
"""

from __future__ import annotations

from lorax.spectral.basis import TOLERANCE, compute_bases, compute_basis, compute_span
from lorax.spectral.exact import RANK_TOLERANCE, exact_basis, row_space
from lorax.spectral.leading import (
    K_SIMILARITY,
    above_chance,
    compute_leading,
    similarity,
    similarity_rank,
)
from lorax.spectral.values import Leading, Span, SpectralBasis

__all__ = [
    "K_SIMILARITY",
    "RANK_TOLERANCE",
    "TOLERANCE",
    "Leading",
    "Span",
    "SpectralBasis",
    "above_chance",
    "compute_bases",
    "compute_basis",
    "compute_leading",
    "compute_span",
    "exact_basis",
    "row_space",
    "similarity",
    "similarity_rank",
]
