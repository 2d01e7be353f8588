"""Which source layer goes to which target layer.

Architectures with the same blocks are matched by name. Where blocks were removed or added, units (`lorax.layers.Unit`) of one
kind and section are matched monotonically in depth by dynamic programming on the cosine of their weights, with gaps on either
side: one source block is never used twice, and a target block may stay without.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from lorax.checkpoint import Checkpoint
from lorax.layers import Component, Layer, LayerId, LayerKind, Unit
from lorax.linalg import cosine, flatten_weight
from lorax.transfer.types import LayerMatch, Progress, UnitMatch, no_progress
from lorax.workers import in_order

SKETCH = 64
"""Side of a weight's sketch, which keeps cosines to about 1/64; true blocks score over .9, wrong ones under .05."""
SKETCHED_ROWS = 256
"""Rows of a weight that are read for its sketch: reading takes the time, and their cosine is that of the whole weight to about 1/256."""
MIN_UNIT_COSINE = 0.2
"""Blocks less alike than this are not counterparts."""


@dataclass(frozen=True)
class Matching:
    """The outcome of matching: which layers correspond, the block map behind it, and what has no place."""

    layers: tuple[LayerMatch, ...]
    units: tuple[UnitMatch, ...]
    """Empty where every component was matched by name."""
    unplaced: Mapping[LayerId, str]
    """Source layers without a counterpart, each with its reason."""

    def narrowed(self, wanted: Iterable[LayerId]) -> Matching:
        """The part that speaks of the source layers `wanted`."""
        chosen = set(wanted)
        layers = tuple(m for m in self.layers if m.source in chosen)
        return Matching(layers, self.units, {i: reason for i, reason in self.unplaced.items() if i in chosen})


def match_layers(source: Checkpoint, target: Checkpoint, wanted: Iterable[LayerId], progress: Progress = no_progress) -> Matching:
    """Match the source layers `wanted` (those of an adapter) with layers of `target`."""
    ids = sorted(wanted)
    layers: list[LayerMatch] = []
    units: list[UnitMatch] = []
    unplaced: dict[LayerId, str] = {}
    for component in sorted({i.component for i in ids}, key=list(Component).index):
        mine = [i for i in ids if i.component == component]
        if component not in target.components:
            unplaced |= dict.fromkeys(mine, f"the target has no {component}")
        elif component not in source.components:
            unplaced |= dict.fromkeys(mine, f"the source has no {component}")
        elif same_blocks(source, target, component):
            layers += [LayerMatch(i, i) for i in mine if i in target.layers]
            unplaced |= {i: "no such layer in the target" for i in mine if i not in target.layers}
        else:
            matching = match_by_blocks(source, target, mine, progress)
            layers += matching.layers
            units += matching.units
            unplaced |= matching.unplaced
    return Matching(tuple(layers), tuple(units), unplaced)


def same_blocks(source: Checkpoint, target: Checkpoint, component: Component) -> bool:
    """Whether a component is built of the same blocks in both bases, whatever their widths."""
    return component_units(source, component) == component_units(target, component)


def component_units(base: Checkpoint, component: Component) -> set[Unit]:
    return {layer.spec.unit for layer in base.layers.values() if layer.id.component == component}


def match_by_blocks(source: Checkpoint, target: Checkpoint, ids: Sequence[LayerId], progress: Progress) -> Matching:
    """Match by units: all kinds of units that `ids` lie in are aligned, layers follow their unit by role."""
    kinds = {source.layers[i].spec.unit.kind for i in ids}
    component = ids[0].component
    theirs, ours = units_of(source, component, kinds), units_of(target, component, kinds)
    sketches = sketch_units(source, theirs, "source", progress), sketch_units(target, ours, "target", progress)
    pairs = [*align_units(theirs, ours, *sketches)]
    units = [UnitMatch(str(t), str(s) if s else None, c) for t, s, c in sorted(pairs, key=lambda pair: pair[0].index) if t.kind != "fixed"]
    place = {(s, layer.spec.role): layer.id for t, s, _ in pairs if s is not None for layer in ours[t]}
    layers: list[LayerMatch] = []
    unplaced: dict[LayerId, str] = {}
    matched = {s for _, s, _ in pairs}
    for i in ids:
        spec = source.layers[i].spec
        if (spec.unit, spec.role) in place:
            layers.append(LayerMatch(place[spec.unit, spec.role], i))
        else:
            unplaced[i] = (
                f"its block has no {spec.role} in the target" if spec.unit in matched else "its block has no counterpart in the target"
            )
    return Matching(tuple(layers), tuple(units), unplaced)


def units_of(base: Checkpoint, component: Component, kinds: set[str]) -> dict[Unit, list[Layer]]:
    """Units of these kinds in the order of execution, each with its layers."""
    units: dict[Unit, list[Layer]] = defaultdict(list)
    for layer in base.layers.values():
        unit = layer.spec.unit
        if unit.component == component and unit.kind in kinds:
            units[unit].append(layer)
    return {u: units[u] for u in sorted(units, key=lambda u: u.index)}


def align_units(
    theirs: Mapping[Unit, Sequence[Layer]],
    ours: Mapping[Unit, Sequence[Layer]],
    their_sketches: Mapping[Unit, Mapping[str, Tensor]],
    our_sketches: Mapping[Unit, Mapping[str, Tensor]],
) -> Iterable[tuple[Unit, Unit | None, float | None]]:
    """Pairs (target unit, source unit or None, cosine) for every target unit."""
    for kind, section in sorted({(u.kind, u.section) for u in ours}):
        targets = [u for u in ours if (u.kind, u.section) == (kind, section)]
        sources = [u for u in theirs if (u.kind, u.section) == (kind, section)]
        if kind == "fixed":
            yield from ((t, t if t in theirs else None, None) for t in targets)
            continue
        scores = [[unit_cosine(our_sketches[t], their_sketches[s]) for s in sources] for t in targets]
        partners = align_monotonically(scores)
        yield from (
            (t, None if j is None else sources[j], None if j is None else scores[i][j])
            for i, (t, j) in enumerate(zip(targets, partners, strict=True))
        )


def align_monotonically(scores: Sequence[Sequence[float]], threshold: float = MIN_UNIT_COSINE) -> list[int | None]:
    """For each row the column it is matched with, or None: the monotone one-to-one map of the largest sum of (score − threshold).

    Needleman–Wunsch with free gaps on either side.
    """
    rows, columns = len(scores), len(scores[0]) if scores else 0
    best = [[0.0] * (columns + 1) for _ in range(rows + 1)]
    for i in range(rows):
        for j in range(columns):
            best[i + 1][j + 1] = max(best[i][j + 1], best[i + 1][j], best[i][j] + scores[i][j] - threshold)
    partners: list[int | None] = [None] * rows
    i, j = rows, columns
    while i and j:
        if best[i][j] == best[i - 1][j]:
            i -= 1
        elif best[i][j] == best[i][j - 1]:
            j -= 1
        else:
            i, j = i - 1, j - 1
            partners[i] = j
    return partners


def unit_cosine(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Mean cosine over the keys of both sketches; a layer that only one unit has, or in another shape, counts 0."""
    keys = a.keys() | b.keys()
    return sum(cosine(a[key], b[key]) for key in a.keys() & b.keys()) / len(keys) if keys else 0.0


def sketch_units(base: Checkpoint, units: Mapping[Unit, Sequence[Layer]], name: str, progress: Progress) -> dict[Unit, dict[str, Tensor]]:
    """For each unit the sketches of its weights by role and shape; norms are alike everywhere, so they are left out."""
    layers = [(u, layer) for u, group in units.items() for layer in group if layer.spec.kind in (LayerKind.LINEAR, LayerKind.CONV)]
    layers = [(unit, layer) for unit, layer in layers if unit.kind != "fixed"]
    sketches: dict[Unit, dict[str, Tensor]] = {u: {} for u in units}

    def read(item: tuple[Unit, Layer]) -> Tensor:
        return flatten_weight(base.read(item[1], SKETCHED_ROWS))

    def nbytes(item: tuple[Unit, Layer]) -> int:
        return 4 * min(item[1].out_features, SKETCHED_ROWS) * item[1].in_features

    with contextlib.closing(in_order(layers, read, lambda _, weight: sketch(weight), nbytes, torch.device("cpu"))) as stream:
        for done, (unit, layer) in enumerate(layers):
            progress(f"matching blocks: reading the {name}", done, len(layers))
            sketches[unit][f"{layer.spec.role} {layer.shape}"] = next(stream)
    return sketches


def sketch(weight: Tensor) -> Tensor:
    """``L W R`` with fixed random sign matrices: [64, 64] (or the weight's own side where that is smaller); it keeps cosines.

    weight: [n, in], the first rows of a layer's.
    """
    left, right = sign_matrix(weight.shape[0]), sign_matrix(weight.shape[1])
    return (left.T @ weight) @ right


@lru_cache(maxsize=32)
def sign_matrix(n: int) -> Tensor:
    """[n, 64] of ±1, fixed by n; the identity where n ≤ 64."""
    if n <= SKETCH:
        return torch.eye(n)
    bits = torch.randint(0, 2, (n, SKETCH), generator=torch.Generator().manual_seed(n))
    return bits.float().mul_(2).sub_(1)
