"""The alignment of two bases: their blocks, then their channels."""

from __future__ import annotations

import torch

from lorax.checkpoint import Checkpoint
from lorax.transfer.align.alignment import Alignment
from lorax.transfer.align.links import build_graph
from lorax.transfer.align.search import Search
from lorax.transfer.match import Matching
from lorax.transfer.types import Progress, no_progress


def find_alignment(
    source: Checkpoint,
    target: Checkpoint,
    matching: Matching,
    device: torch.device | None = None,
    progress: Progress = no_progress,
    hurried: bool = False,
) -> Alignment:
    """The maps of all channel spaces that the matched layers touch.

    matching: of as many layers as possible, not only of an adapter's. hurried: stop where the first fits of the UNet are no better
    than chance, with the maps found so far. Raises `MissingPackage` where scipy is needed and missing.
    """
    graph = build_graph(source, target, matching.layers)
    search = Search(source, target, graph, device or torch.device("cpu"), progress, hurried)
    search.run()
    return Alignment(search.maps, search.fits, {link.target.id: link for link in graph.links})
