"""How alike the matched weights are: Φ̂ left and right (Eq. 4 above chance), ρ, equality, and the transferability cost.

A pass over both bases that reads one weight of each at a time and keeps only leading subspaces of one group of layers.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor

from lorax.checkpoint import Checkpoint
from lorax.layers import Component, Layer, LayerId, LayerKind
from lorax.linalg import cosine, flatten_weight
from lorax.spectral import Leading, above_chance, compute_leading, similarity, similarity_rank
from lorax.transfer.align import Alignment
from lorax.transfer.atc import combine, cost_matrix
from lorax.transfer.types import Atc, LayerMatch, LayerScore, Progress, no_progress
from lorax.workers import in_order

GroupKey = tuple[Component, str, tuple[int, ...]]
"""Component, role and shape."""
COARSE = {"F16": 2**-10, "BF16": 2**-7, "F8_E4M3": 2**-3, "F8_E5M2": 2**-2}
"""Relative rounding of a stored number by safetensors dtype."""


@dataclass(frozen=True)
class Scores:
    """The scores of all matched layers, and the transferability cost over their groups."""

    layers: Mapping[LayerId, LayerScore]
    """By target layer."""
    atc: Atc | None


def measurable(layer: Layer) -> bool:
    return layer.spec.kind in (LayerKind.LINEAR, LayerKind.CONV)


def score_matches(
    source: Checkpoint,
    target: Checkpoint,
    matches: Sequence[LayerMatch],
    sources: Iterable[LayerId],
    targets: Iterable[LayerId],
    k_sim: int | None = None,
    device: torch.device | None = None,
    progress: Progress = no_progress,
    alignment: Alignment | None = None,
) -> Scores:
    """Score `matches`; the transferability cost also counts the layers `sources` and `targets` that stayed without a partner.

    alignment: the source's weights are compared in the target's channels, and `matches` may differ in width.
    """
    partner = {m.target: source.layers[m.source] for m in matches}
    theirs, ours = group_layers(source, [*sources, *(m.source for m in matches)]), group_layers(target, [*targets, *partner])
    pairs: list[_Pair] = []
    for key, group in ours.items():
        rank = group_rank(group[0], k_sim)
        here = [_Pair(key, layer, _fitting(layer, partner.get(layer.id), alignment), rank) for layer in group]
        placed = {pair.theirs.id for pair in here if pair.theirs}
        pairs += [pair for pair in here if rank or pair.theirs]
        pairs += [_Pair(key, None, layer, rank) for layer in theirs.get(key, []) if rank and layer.id not in placed]
    comparison = _Comparison(source, target, device or torch.device("cpu"), alignment)
    return comparison.of(pairs, progress)


def _fitting(layer: Layer, other: Layer | None, alignment: Alignment | None) -> Layer | None:
    return other if other is not None and (alignment is not None or other.shape == layer.shape) else None


@dataclass(frozen=True)
class _Pair:
    """A layer of the target and its counterpart; either may be missing."""

    group: GroupKey
    ours: Layer | None
    theirs: Layer | None
    rank: int
    """At which similarity is taken; 0: not at all."""


@dataclass(frozen=True, eq=False)
class _Compared:
    """What is kept of a pair."""

    ours: Leading | None
    theirs: Leading | None
    score: LayerScore | None


@dataclass(frozen=True, eq=False)
class _Comparison:
    """Two bases, compared layer by layer, several at a time."""

    source: Checkpoint
    target: Checkpoint
    device: torch.device
    alignment: Alignment | None

    def of(self, pairs: Sequence[_Pair], progress: Progress) -> Scores:
        """Scores of all pairs; leading subspaces are kept for one group at a time."""
        scores: dict[LayerId, LayerScore] = {}
        costs: list[tuple[Tensor, Tensor]] = []
        done = 0
        with contextlib.closing(in_order(pairs, self.read, self.compare, nbytes, self.device)) as stream:
            for _, group in groupby(pairs, lambda pair: pair.group):
                found: list[_Compared] = []
                for pair in group:
                    progress("comparing the two bases", done, len(pairs))
                    found.append(next(stream))
                    done += 1
                    if pair.ours is not None and (score := found[-1].score) is not None:
                        scores[pair.ours.id] = score
                sources, targets = [c.theirs for c in found if c.theirs], [c.ours for c in found if c.ours]
                if targets:
                    costs.append(cost_matrices(sources, targets))
        return Scores(scores, combine(costs))

    def read(self, pair: _Pair) -> tuple[Tensor | None, Tensor | None]:
        """The weights as matrices, ours first."""
        sides = (self.target, pair.ours), (self.source, pair.theirs)
        ours, theirs = (None if layer is None else flatten_weight(base.read(layer)).to(self.device) for base, layer in sides)
        return ours, theirs

    def compare(self, pair: _Pair, weights: tuple[Tensor | None, Tensor | None]) -> _Compared:
        ours, theirs = weights
        if pair.ours is None or pair.theirs is None or ours is None or theirs is None:
            return _Compared(leading(ours, pair.rank), leading(theirs, pair.rank), None)
        if self.alignment is not None:
            theirs = self.alignment.carry_matrix(pair.ours.id, theirs)
        same = equal_as_stored(theirs, ours, (self.source.stored_dtype(pair.theirs), self.target.stored_dtype(pair.ours)))
        b = leading(theirs, pair.rank)
        a = b if same else leading(ours, pair.rank)
        score = score_pair(theirs, ours, same, b, a)
        if self.alignment is not None:
            score = replace(score, chance_cosine=self.alignment.chance(pair.ours.id))
        return _Compared(a, b, score)


def nbytes(pair: _Pair) -> int:
    """Of the pair's weights in fp32."""
    return sum(4 * layer.out_features * layer.in_features for layer in (pair.ours, pair.theirs) if layer is not None)


def leading(weight: Tensor | None, rank: int) -> Leading | None:
    return compute_leading(weight, rank) if weight is not None and rank else None


def group_layers(base: Checkpoint, ids: Iterable[LayerId]) -> dict[GroupKey, list[Layer]]:
    """Layers that can be compared with each other: of one component, role and shape."""
    groups: dict[GroupKey, list[Layer]] = defaultdict(list)
    for i in dict.fromkeys(ids):
        layer = base.layers[i]
        if measurable(layer):
            groups[i.component, layer.spec.role, layer.shape].append(layer)
    return groups


def cost_matrices(sources: Sequence[Leading], targets: Sequence[Leading]) -> tuple[Tensor, Tensor]:
    """Left and right cost matrix of a group; a group without any source costs 1 throughout."""
    if not sources:
        return torch.ones(1, len(targets)), torch.ones(1, len(targets))
    return cost_matrix([x.U for x in sources], [x.U for x in targets]), cost_matrix([x.V for x in sources], [x.V for x in targets])


def group_rank(layer: Layer, k_sim: int | None) -> int:
    """k_sim for a layer: METHOD's rule, or the user's choice within the same quarter of the short side; 0: not measurable."""
    sides = layer.out_features, layer.in_features
    return similarity_rank(sides) if k_sim is None else min(k_sim, min(sides) // 4)


def score_pair(wa: Tensor, wb: Tensor, same: bool, a: Leading | None, b: Leading | None) -> LayerScore:
    """The score of one pair of weights [out, in], given their leading subspaces where these can be measured."""
    rho = 1.0 if same else cosine(wa, wb)
    if a is None or b is None:
        return LayerScore(None, None, None, None, rho, same)
    k = a.U.shape[1]
    left, right = k / wa.shape[0], k / wa.shape[1]
    return LayerScore(above_chance(similarity(a.U, b.U), left), above_chance(similarity(a.V, b.V), right), left, right, rho, same)


def equal_as_stored(a: Tensor, b: Tensor, dtypes: tuple[str, str]) -> bool:
    """Whether two weights are one, up to the rounding of the coarser of their stored dtypes."""
    tolerance = max(COARSE.get(d, 0.0) for d in dtypes)
    if dtypes[0] == dtypes[1] or tolerance == 0.0:
        return bool(torch.equal(a, b))
    return bool(((a - b).abs() <= tolerance * torch.maximum(a.abs(), b.abs()) + 1e-7).all())
