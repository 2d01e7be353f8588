"""Two models as one graph: which pairs of channel spaces the matched layers tie together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lorax.checkpoint import Checkpoint
from lorax.layers import ChannelSpace, Component, Layer, LayerId, LayerKind
from lorax.structure.channels import Wiring
from lorax.transfer.types import LayerMatch

Pair = tuple[ChannelSpace, ChannelSpace]
"""(target space, source space): one unknown map. A target space can have several, where blocks went elsewhere."""


@dataclass(frozen=True)
class Link:
    """A matched layer: it ties its output pair to its input pairs."""

    target: Layer
    source: Layer
    out: Pair
    inputs: tuple[Pair, ...]

    @property
    def pairs(self) -> tuple[Pair, ...]:
        return (self.out, *self.inputs)

    @property
    def gated(self) -> bool:
        return self.out[0].kind == "gated"


@dataclass(frozen=True, eq=False)
class Graph:
    """All matched layers, in order of execution, and how wide each space is."""

    links: tuple[Link, ...]
    target_wiring: Wiring
    source_wiring: Wiring
    target_sizes: Mapping[ChannelSpace, int]
    source_sizes: Mapping[ChannelSpace, int]

    def sizes(self, pair: Pair) -> tuple[int, int]:
        """(n_t, n_s)"""
        return self.target_sizes[pair[0]], self.source_sizes[pair[1]]

    def input_pairs(self, target: LayerId, source: LayerId) -> tuple[Pair, ...]:
        """The pairs that two layers would read if they were matched."""
        return tuple(zip(self.target_wiring[target].inputs, self.source_wiring[source].inputs, strict=True))

    def pairs(self) -> Iterator[Pair]:
        """Every pair once, in order of execution."""
        return iter(dict.fromkeys(pair for link in self.links for pair in link.pairs))

    def touching(self) -> dict[Pair, list[Link]]:
        """The links at each pair."""
        found: dict[Pair, list[Link]] = {}
        for link in self.links:
            for pair in dict.fromkeys(link.pairs):
                found.setdefault(pair, []).append(link)
        return found


def build_graph(source: Checkpoint, target: Checkpoint, matches: Iterable[LayerMatch]) -> Graph:
    """The graph of the matched layers. The context is that of the text encoders where both bases hold them."""
    context = both_have_text(source, target)
    theirs, ours = source.arch.wiring(context), target.arch.wiring(context)
    sizes = space_sizes(source, theirs), space_sizes(target, ours)
    partner = {m.target: m.source for m in matches}
    links: list[Link] = []
    for i, layer in target.layers.items():
        other = partner.get(i)
        if other is None or i not in ours or other not in theirs:
            continue
        mine, its = ours[i], theirs[other]
        if len(mine.inputs) == len(its.inputs):
            links.append(Link(layer, source.layers[other], (mine.out, its.out), tuple(zip(mine.inputs, its.inputs, strict=True))))
    return Graph(tuple(links), ours, theirs, sizes[1], sizes[0])


def both_have_text(source: Checkpoint, target: Checkpoint) -> bool:
    """Whether both bases hold the text encoders that their UNet reads, as its width says."""
    for base in (source, target):
        wiring, read = base.arch.wiring(), cross_attention(base)
        if read is None:
            return False
        widths = [base.layers[i].shape[1] for i in embeddings(base)]
        if len(widths) != len(wiring[read.id].inputs) or sum(widths) != read.shape[1]:
            return False
    return source.arch.components == target.arch.components


def cross_attention(base: Checkpoint) -> Layer | None:
    return next((layer for layer in base.layers.values() if layer.spec.role == "attn2.to_k"), None)


def embeddings(base: Checkpoint) -> list[LayerId]:
    """The token embeddings of the text encoders at hand, in order."""
    found = [LayerId(c, "text_model.embeddings.token_embedding") for c in Component]
    return [i for i in found if i in base.layers]


def space_sizes(base: Checkpoint, wiring: Wiring) -> dict[ChannelSpace, int]:
    """The width of each space, from the layers that write it or that read nothing else."""
    sizes: dict[ChannelSpace, int] = {}
    for i, sides in wiring.items():
        layer = base.layers.get(i)
        if layer is None:
            continue
        out, read = matrix_shape(layer)
        sizes.setdefault(sides.out, out // 2 if sides.out.kind == "gated" else out)
        if len(sides.inputs) == 1:
            sizes.setdefault(sides.inputs[0], read)
    return sizes


def matrix_shape(layer: Layer) -> tuple[int, int]:
    """(out, in) as the wiring means it."""
    out, read = layer.shape[0], layer.shape[1]
    return (read, out) if layer.spec.kind == LayerKind.EMBEDDING else (out, read)


def read_weight(base: Checkpoint, layer: Layer, device: torch.device | None = None) -> Tensor:
    """[out, in, kh·kw], fp32; an embedding [rows, width] as [width, rows, 1]."""
    weight = base.read(layer).to(device)
    if layer.spec.kind == LayerKind.EMBEDDING:
        return weight.T[:, :, None]
    return weight.reshape(*weight.shape[:2], math.prod(weight.shape[2:]))
