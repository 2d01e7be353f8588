"""Which spaces have the same channels in both models: one cheap pass that spares siblings every fit."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lorax.checkpoint import Checkpoint
from lorax.transfer.align.links import Graph, Link, Pair, read_weight
from lorax.transfer.types import Progress

SAME = 0.5
"""Cosine of a channel's weights in both models above which it is the same channel; wrong ones are near 0, relatives over .8."""
ENOUGH = 0.9
"""Share of a space's channels that must be the same; a few may have died or been drawn anew."""
PIECE = 1 << 22
"""Numbers of each weight that are multiplied at a time."""


def same_channels(source: Checkpoint, target: Checkpoint, graph: Graph, device: torch.device, progress: Progress) -> set[Pair]:
    """The pairs of spaces of equal size whose channels agree one by one, in order. Reads every matched weight once."""
    links = [link for link in graph.links if all(len(set(graph.sizes(p))) == 1 for p in link.pairs)]
    # All room first: what is kept among weights that come and go would tear holes into memory that nothing fits into again.
    agreement = {pair: torch.zeros(2, graph.sizes(pair)[0], device=device) for link in links for pair in link.pairs}
    for done, link in enumerate(links):
        progress("comparing channels", done, len(links))
        for pair, found in compare(link, graph, read_weight(target, link.target, device), read_weight(source, link.source, device)):
            agreement[pair] += found
    return {pair for pair, (inner, norms) in agreement.items() if float((inner >= SAME * norms).float().mean()) >= ENOUGH}


def compare(link: Link, graph: Graph, a: Tensor, b: Tensor) -> Iterator[tuple[Pair, Tensor]]:
    """For each pair at a link [2, n]: every channel's inner product and its bound by the norms, of weights [out, in, kh·kw]."""
    scale = float(a.norm() * b.norm()) or 1.0
    piece = max(1, PIECE // a[0].numel())
    by_row: list[Tensor] = []
    by_column = a.new_zeros(3, a.shape[1])
    for x, y in zip(a.split(piece), b.split(piece), strict=True):
        products = torch.stack([x * y, x * x, y * y])
        by_row.append(products.sum((2, 3)))
        by_column += products.sum((1, 3))

    def bounded(sums: Tensor) -> Tensor:
        inner, ours, theirs = sums / scale
        return torch.stack([inner, (ours * theirs).sqrt()])

    rows = bounded(torch.cat(by_row, 1))
    yield link.out, rows.unflatten(1, (2, -1)).sum(1) if link.gated else rows
    yield from zip(link.inputs, bounded(by_column).split([graph.sizes(p)[0] for p in link.inputs], 1), strict=True)
