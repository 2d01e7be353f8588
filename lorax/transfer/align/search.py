"""Find the maps: from the anchors forward, then again where a neighbour has changed. Two layers are in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lorax.checkpoint import Checkpoint
from lorax.layers import ChannelSpace, Component
from lorax.transfer.align.assign import GOOD, Fit, rotate, select
from lorax.transfer.align.evidence import Evidence
from lorax.transfer.align.links import Graph, Link, Pair, read_weight
from lorax.transfer.align.maps import ChannelMap, Dense, identity, map_columns, map_rows
from lorax.transfer.align.same import same_channels
from lorax.transfer.align.timesteps import sinusoid_map
from lorax.transfer.types import Progress, no_progress

ROUNDS = 5
"""At most; most spaces settle in the first."""
FIRST_FITS = 8
"""Fits of the UNet after which a hurried search looks whether there is anything to find."""
HOPELESS = 0.2
"""Mean agreement above chance of the first fits under which two UNets are unrelated: these have less than .1, relatives over .5."""


@dataclass(eq=False)
class Search:
    """The maps found so far."""

    source: Checkpoint
    target: Checkpoint
    graph: Graph
    device: torch.device
    progress: Progress = no_progress
    hurried: bool = False
    maps: dict[Pair, ChannelMap] = field(default_factory=dict[Pair, ChannelMap])
    fits: dict[Pair, Fit] = field(default_factory=dict[Pair, Fit])
    versions: dict[Pair, int] = field(default_factory=dict[Pair, int])
    """How often each map has changed."""

    def run(self) -> None:
        self.maps |= {p: m for p in self.graph.pairs() if (m := anchor(p, *self.graph.sizes(p))) is not None}
        settled = same_channels(self.source, self.target, self.graph, self.device, self.progress)
        self.maps |= {pair: identity(self.graph.sizes(pair)[0]) for pair in settled if pair not in self.maps}
        open_pairs = [p for p in self.graph.pairs() if p not in self.maps and p[0].kind not in ("fixed", "timestep")]
        open_pairs.sort(key=lambda p: p[0].component == Component.UNET)
        touching = self.graph.touching()
        seen: dict[Pair, tuple[tuple[Pair, int], ...]] = {}
        for _ in range(ROUNDS):
            changed = False
            for done, pair in enumerate(open_pairs):
                self.progress("aligning channels", done, len(open_pairs))
                now = self.neighbours(pair, touching[pair])
                if now == seen.get(pair):
                    continue
                seen[pair] = now
                changed |= self.solve(pair, touching)
                if self.hopeless():
                    return
            if not changed:
                break

    def hopeless(self) -> bool:
        """Whether a hurried search has seen enough."""
        fits = [fit.above_chance for pair, fit in self.fits.items() if pair[0].component == Component.UNET]
        return self.hurried and len(fits) == FIRST_FITS and sum(fits) / len(fits) < HOPELESS

    def neighbours(self, pair: Pair, links: list[Link]) -> tuple[tuple[Pair, int], ...]:
        """What the evidence for a pair depends on."""
        others = dict.fromkeys(p for link in links for p in link.pairs if p != pair and p in self.maps)
        return tuple((p, self.versions.get(p, 0)) for p in others)

    def solve(self, pair: Pair, touching: Mapping[Pair, list[Link]]) -> bool:
        """Fit one map to all that is known around it; whether it has changed."""
        evidence = self.evidence(pair, touching[pair])
        if not evidence:
            return False
        found, fit = select(evidence)
        if pair[0].kind == "heads" and fit.above_chance < GOOD:
            partner = other_side(pair)
            beside = self.evidence(partner, touching[partner]) if partner in touching else None
            rotated, turned = rotate(evidence, beside or None, self.target.arch.family)
            if turned.above_chance > fit.above_chance:
                found, fit = rotated, turned
        before = self.maps.get(pair)
        self.maps[pair], self.fits[pair] = found, fit
        if before is not None and same_map(before, found):
            return False
        self.versions[pair] = self.versions.get(pair, 0) + 1
        return True

    def evidence(self, pair: Pair, links: list[Link]) -> Evidence:
        """What the layers at a pair say, those whose other side has a map."""
        found = Evidence(self.graph.sizes(pair))
        for link in links:
            if any(p in self.maps for p in link.pairs if p != pair):
                target = unit(read_weight(self.target, link.target, self.device))
                source = unit(read_weight(self.source, link.source, self.device))
                self.look_at(pair, link, target, source, found)
        return found

    def look_at(self, pair: Pair, link: Link, target: Tensor, source: Tensor, found: Evidence) -> None:
        """Add one layer's rows, or columns, or both."""
        for part, mine, its in self.parts(link, target, source):
            if pair == link.out and part != pair and part in self.maps:
                its = map_columns(its, [self.maps[part]])
                rows = (mine.flatten(1), its.flatten(1))
                if link.gated:
                    halves = [x.split(x.shape[0] // 2) for x in rows]
                    found.add(halves[0][0], halves[1][0], signed=True)
                    found.add(halves[0][1], halves[1][1])
                else:
                    found.add(*rows)
            if pair == part and link.out != pair and link.out in self.maps:
                its = map_rows(its, self.maps[link.out], link.gated)
                found.add(mine.transpose(0, 1).flatten(1), its.transpose(0, 1).flatten(1), signed=pair[0].kind == "gated")

    def parts(self, link: Link, target: Tensor, source: Tensor) -> Iterator[tuple[Pair, Tensor, Tensor]]:
        """The concatenated inputs of a layer, each with its columns."""
        sizes = [self.graph.sizes(p) for p in link.inputs]
        ours, theirs = target.split([t for t, _ in sizes], 1), source.split([s for _, s in sizes], 1)
        return zip(link.inputs, ours, theirs, strict=True)


def anchor(pair: Pair, n_t: int, n_s: int) -> ChannelMap | None:
    """The map of spaces that are the same in all models of a family."""
    if pair[0].kind not in ("fixed", "timestep"):
        return None
    if n_t == n_s:
        return identity(n_t)
    return Dense(sinusoid_map(n_t, n_s)) if pair[0].kind == "timestep" else None


def other_side(pair: Pair) -> Pair:
    """Queries and keys ↔ values and outputs of the same attention."""

    def swap(space: ChannelSpace) -> ChannelSpace:
        head, _, name = space.name.rpartition(".")
        return ChannelSpace(space.component, f"{head}.{'values' if name == 'queries' else 'queries'}", space.kind)

    return swap(pair[0]), swap(pair[1])


def same_map(a: ChannelMap, b: ChannelMap) -> bool:
    """Whether two maps do the same, to rounding."""
    rows = torch.randn(a.sizes[1], 4, generator=torch.Generator().manual_seed(0))
    x, y = a.apply(rows), b.apply(rows)
    return bool((x - y).norm() <= 1e-3 * y.norm())


def unit(weight: Tensor) -> Tensor:
    """The weight at Frobenius norm 1, so that every layer has one vote."""
    return weight / weight.norm().clamp_min(1e-12)
