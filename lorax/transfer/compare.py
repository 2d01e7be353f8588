"""Two bases compared without an adapter, by what a transfer between them goes by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from lorax.checkpoint import Checkpoint
from lorax.layers import Component, Layer, LayerId, LayerKind
from lorax.spectral import K_SIMILARITY
from lorax.transfer.align import Alignment
from lorax.transfer.match import Matching, match_layers
from lorax.transfer.relate import Relation, alignment_may_help, better_aligned, with_alignment
from lorax.transfer.score import Scores, measurable, score_matches
from lorax.transfer.types import Progress, no_progress
from lorax.transfer.verdict import Judgement, judge


@dataclass(frozen=True, eq=False)
class SimilarityReport:
    """Two bases compared, without an adapter."""

    source_name: str
    target_name: str
    family: str
    matching: Matching
    scores: Scores
    k_sim: int
    """Largest rank at which similarity was taken; narrow layers use a quarter of their side."""
    judgement: Judgement
    """The verdict on a transfer of an adapter that touches all compared layers."""
    alignment: Alignment | None = None
    """The source's channels in the target, where the scores are of these and not of the weights as they are stored."""


def compute_similarity(
    source: Checkpoint,
    target: Checkpoint,
    components: Iterable[Component] | None = None,
    attention_only: bool = True,
    k_sim: int | None = None,
    device: torch.device | None = None,
    progress: Progress = no_progress,
    align: bool = True,
) -> SimilarityReport:
    """Compare two bases layer by layer; by default the attention modules, which the paper adapts.

    align: find the channels where a transfer would, so that its verdict is this one's; without, all is as it is stored.
    """
    chosen = set(source.components if components is None else components)

    def wanted(base: Checkpoint) -> list[LayerId]:
        layers = [layer for layer in base.layers.values() if layer.id.component in chosen and measurable(layer)]
        return [layer.id for layer in layers if not attention_only or is_attention(layer)]

    layers, device = wanted(source), device or torch.device("cpu")
    matching = match_layers(source, target, layers, progress)
    scores = score_matches(source, target, matching.layers, layers, wanted(target), k_sim, device, progress)
    relation = Relation(matching, scores)
    if align and source.arch.family == target.arch.family and alignment_may_help(source, target, relation):
        relation = with_alignment(relation, source, target, layers, str(device), progress, hurried=True, k_sim=k_sim)
    found = relation.aligned if better_aligned(relation) else None
    matching, scores, alignment = (found.matching, found.scores, found.alignment) if found else (matching, scores, None)
    in_unet = any(i.component == Component.UNET for i in layers)
    judgement = judge(source, target, scores.layers, len(scores.layers), alignment if in_unet else None, in_unet)
    return SimilarityReport(source.name, target.name, target.arch.family, matching, scores, k_sim or K_SIMILARITY, judgement, alignment)


def is_attention(layer: Layer) -> bool:
    """One of the q, k, v and output projections."""
    return layer.spec.kind == LayerKind.LINEAR and layer.spec.role.startswith(("attn", "self_attn"))
