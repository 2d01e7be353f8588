"""Adapter transferability cost by exact optimal transport; lower is easier.

The paper (LoRA-X, arXiv 2501.16559) says that ATC is "optimal-transport-based"; the formula is ours. Over the modules of one
role and shape, ``C_ij = 1 − Φ̂(W_s,i , W_t,j)``. In the main form the target's marginal is uniform and the source's is free,
because a pruned target needs only a part of its source. In the balanced form both are uniform, which charges pruning itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lorax.errors import MissingPackage
from lorax.spectral import above_chance
from lorax.transfer.types import Atc


def cost_matrix(sources: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """``1 − Φ̂`` between every source and every target subspace ([n, k] each), [n_s, n_t], between 0 and 1."""
    n, k = targets[0].shape
    overlaps = torch.cat([*sources], 1).T @ torch.cat([*targets], 1)
    phi = overlaps.square().reshape(len(sources), k, len(targets), k).sum((1, 3)) / k
    return (1.0 - above_chance(phi, k / n)).clamp(0.0, 1.0).cpu()


def free_source_cost(cost: Tensor) -> float:
    """Optimal transport with a uniform target and a free source marginal: every target takes its nearest source."""
    return float(cost.min(0).values.mean())


def balanced_cost(cost: Tensor) -> float:
    """Exact optimal transport with uniform marginals on both sides (a linear program, HiGHS)."""
    try:
        from scipy.optimize import linprog  # pyright: ignore[reportUnknownVariableType]
        from scipy.sparse import eye, kron, vstack
    except ImportError as error:
        raise MissingPackage("the transferability cost needs scipy, which is not installed: pip install scipy") from error
    n_s, n_t = cost.shape
    rows = kron(eye(n_s), np.ones((1, n_t)))
    columns = kron(np.ones((1, n_s)), eye(n_t))
    marginals = np.concatenate([np.full(n_s, 1 / n_s), np.full(n_t, 1 / n_t)])
    solved = linprog(cost.numpy().ravel(), A_eq=vstack([rows, columns]), b_eq=marginals, bounds=(0, None), method="highs")
    return float(solved.fun)


def combine(groups: Sequence[tuple[Tensor, Tensor]]) -> Atc | None:
    """The cost of a model from its groups' (left, right) cost matrices, weighted by their number of target modules."""
    if not groups:
        return None
    weights = [left.shape[1] for left, _ in groups]

    def mean(values: Sequence[float]) -> float:
        return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)

    return Atc(
        left=mean([free_source_cost(left) for left, _ in groups]),
        right=mean([free_source_cost(right) for _, right in groups]),
        balanced_left=mean([balanced_cost(left) for left, _ in groups]),
        balanced_right=mean([balanced_cost(right) for _, right in groups]),
    )
