"""Which block is which where widths differ, so that whole weights cannot be compared.

Residual blocks are told by how they read the timestep, transformer blocks by how they read the text: both are the same in both
models before anything else is known. What hangs on a residual block follows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from lorax.checkpoint import Checkpoint
from lorax.layers import Component, LayerId, Unit
from lorax.transfer.align.assign import select
from lorax.transfer.align.evidence import Evidence
from lorax.transfer.align.links import build_graph, read_weight
from lorax.transfer.align.maps import map_columns
from lorax.transfer.align.search import Search
from lorax.transfer.match import Matching, align_monotonically, match_layers, same_blocks
from lorax.transfer.types import LayerMatch, Progress, UnitMatch

READERS = {"resnet": ("time_emb_proj",), "transformer": ("attn2.to_k", "attn2.to_v")}
"""Unit kind → the layers that read what both models share."""
Partners = Mapping[Unit, tuple[Unit, float]]
"""Target block → its source block, and how alike they are above chance."""


def match_whole(source: Checkpoint, target: Checkpoint, device: torch.device, progress: Progress) -> Matching:
    """All layers of both bases: by their weights where widths agree, else by what their blocks read."""
    if not widths_differ(source, target) or same_blocks(source, target, Component.UNET):
        return match_layers(source, target, source.layers, progress)
    beside = match_layers(source, target, [i for i in source.layers if i.component != Component.UNET], progress)
    fixed = [LayerMatch(i, i) for i, layer in source.layers.items() if is_fixed(layer.spec.unit) and i in target.layers]
    search = Search(source, target, build_graph(source, target, [*beside.layers, *fixed]), device)
    search.run()
    partners = dict(Blocks(source, target, search, progress).partners())
    layers = [*beside.layers, *fixed]
    for i, layer in target.layers.items():
        if layer.spec.unit in partners:
            other = LayerId(i.component, f"{partners[layer.spec.unit][0].path}.{layer.spec.role}")
            layers += [LayerMatch(i, other)] if other in source.layers else []
    placed = {m.source for m in layers}
    lost = {i: "its block has no counterpart in the target" for i in source.layers if i not in placed and i not in beside.unplaced}
    return Matching(tuple(layers), (*beside.units, *unit_matches(target, partners)), {**beside.unplaced, **lost})


def widths_differ(source: Checkpoint, target: Checkpoint) -> bool:
    """Whether the target's UNet has a width that the source's has not."""

    def widths(base: Checkpoint) -> set[int]:
        layers = base.layers.items()
        return {layer.shape[0] for i, layer in layers if i.component == Component.UNET and layer.spec.role in ("conv_in", "conv1")}

    return not widths(target) <= widths(source)


def is_fixed(unit: Unit) -> bool:
    return unit.component == Component.UNET and unit.kind == "fixed"


def unit_matches(target: Checkpoint, partners: Partners) -> Iterator[UnitMatch]:
    """The block map, in order of execution."""
    for unit in units_of(target).values():
        source, score = partners.get(unit, (None, None))
        yield UnitMatch(str(unit), None if source is None else str(source), score)


def units_of(base: Checkpoint) -> dict[str, Unit]:
    """The UNet's blocks by path, in order of execution."""
    units = {layer.spec.unit for i, layer in base.layers.items() if i.component == Component.UNET and layer.spec.unit.path}
    return {unit.path: unit for unit in sorted(units, key=lambda unit: unit.index)}


@dataclass(frozen=True, eq=False)
class Blocks:
    """Compares the blocks of two UNets by what they read."""

    source: Checkpoint
    target: Checkpoint
    search: Search
    """With the maps of the timestep's embedding and of the context."""
    progress: Progress

    def partners(self) -> Iterator[tuple[Unit, tuple[Unit, float]]]:
        ours, theirs = units_of(self.target), units_of(self.source)
        for section in ("down", "mid", "up"):
            resnets = [[u for u in units.values() if (u.kind, u.section) == ("resnet", section)] for units in (ours, theirs)]
            for target, source, score in self.matched(*resnets):
                yield target, (source, score)
                yield from self.behind(target, source, score, ours, theirs)

    def behind(
        self, target: Unit, source: Unit, score: float, ours: Mapping[str, Unit], theirs: Mapping[str, Unit]
    ) -> Iterator[tuple[Unit, tuple[Unit, float]]]:
        """The attention behind a residual block, its transformer blocks, and the level's sampler."""
        attention, other = (unit.path.replace("resnets", "attentions") for unit in (target, source))
        if attention in ours and other in theirs:
            yield ours[attention], (theirs[other], score)
            blocks = [
                [u for path, u in units.items() if path.startswith(f"{at}.transformer_blocks.")]
                for units, at in ((ours, attention), (theirs, other))
            ]
            for block, partner, likeness in self.matched(*blocks):
                yield block, (partner, likeness)
        for samplers in ("downsamplers.0", "upsamplers.0"):
            mine, its = (f"{unit.path.partition('.resnets')[0]}.{samplers}" for unit in (target, source))
            if mine in ours and its in theirs:
                yield ours[mine], (theirs[its], score)

    def matched(self, targets: Sequence[Unit], sources: Sequence[Unit]) -> Iterator[tuple[Unit, Unit, float]]:
        """The monotone map of the largest likeness."""
        scores: list[list[float]] = []
        for done, target in enumerate(targets):
            self.progress("matching blocks", done, len(targets))
            scores.append([self.likeness(target, source) for source in sources])
        for i, j in enumerate(align_monotonically(scores)):
            if j is not None:
                yield targets[i], sources[j], scores[i][j]

    def likeness(self, target: Unit, source: Unit) -> float:
        """Agreement above chance of the two blocks' readers, their outputs assigned to each other as well as can be."""
        found: list[float] = []
        for role in READERS[target.kind]:
            ours = self.target.layers[LayerId(target.component, f"{target.path}.{role}")]
            theirs = self.source.layers[LayerId(source.component, f"{source.path}.{role}")]
            maps = [self.search.maps.get(pair) for pair in self.search.graph.input_pairs(ours.id, theirs.id)]
            known = [m for m in maps if m is not None]
            if len(known) < len(maps):
                return 0.0
            a = read_weight(self.target, ours, self.search.device)
            b = map_columns(read_weight(self.source, theirs, self.search.device), known)
            evidence = Evidence((a.shape[0], b.shape[0]))
            evidence.add(a.flatten(1), b.flatten(1))
            found.append(select(evidence)[1].above_chance)
        return sum(found) / len(found)
