"""What two bases have to do with each other: the whole-model passes, whose small results every adapter between them shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lorax.checkpoint import Checkpoint
from lorax.device import resolve_device
from lorax.layers import Component, LayerId
from lorax.transfer.align import Alignment, find_alignment, match_whole, widths_differ
from lorax.transfer.match import Matching, match_layers
from lorax.transfer.score import Scores, score_matches
from lorax.transfer.types import LayerScore, Method, Progress, no_progress
from lorax.transfer.verdict import CLOSE_COSINE, model_cosine

MARGIN = 0.05
"""Mean gain in ρ̂ for which channels are taken as found and not as stored; equal channels gain nothing."""


@dataclass(frozen=True, eq=False)
class Aligned:
    """The two bases with the source's weights in the target's channels."""

    matching: Matching
    scores: Scores
    alignment: Alignment


@dataclass(frozen=True, eq=False)
class Relation:
    """What two bases have to do with each other."""

    matching: Matching
    scores: Scores
    """Of the weights as they are stored."""
    aligned: Aligned | None = None
    """None where the bases have the same channels, or where none was looked for."""


def relate(
    source: Checkpoint,
    target: Checkpoint,
    layers: Sequence[LayerId],
    device: str = "auto",
    progress: Progress = no_progress,
    method: Method = "auto",
) -> Relation:
    """Match the source layers `layers` with the target and score the matches.

    method: ``align`` finds the channels in any case; ``auto`` where the weights as stored leave it open, and gives up early on
    bases that share nothing; ``project`` and ``copy`` never.
    """
    matching = match_layers(source, target, layers, progress)
    fitting = [m for m in matching.layers if source.layers[m.source].shape == target.layers[m.target].shape]
    scores = score_matches(source, target, fitting, layers, [], device=resolve_device(device), progress=progress)
    relation = Relation(matching, scores)
    if method == "align" or (method == "auto" and alignment_may_help(source, target, relation)):
        return with_alignment(relation, source, target, layers, device, progress, hurried=method == "auto")
    return relation


def with_alignment(
    relation: Relation,
    source: Checkpoint,
    target: Checkpoint,
    layers: Sequence[LayerId],
    device: str = "auto",
    progress: Progress = no_progress,
    hurried: bool = False,
    k_sim: int | None = None,
) -> Relation:
    """The relation, with the channels found. hurried: give up early on bases that share nothing. k_sim: at most, of similarity."""
    where = resolve_device(device)
    whole = match_whole(source, target, where, progress)
    alignment = find_alignment(source, target, whole, where, progress, hurried)
    matching = whole.narrowed(layers)
    covered = [m for m in matching.layers if alignment.covers(m.target)]
    if alignment.identity and all(m.target in relation.scores.layers for m in covered):
        return Relation(relation.matching, relation.scores, Aligned(matching, relation.scores, alignment))
    scores = score_matches(source, target, covered, layers, [], k_sim, where, progress, alignment)
    return Relation(relation.matching, relation.scores, Aligned(matching, scores, alignment))


def alignment_may_help(source: Checkpoint, target: Checkpoint, relation: Relation) -> bool:
    """Whether channels may be others, or elsewhere: widths differ, or the weights as stored are far apart."""
    rho = model_cosine(relation.scores.layers)
    matching = relation.matching
    reshaped = any(source.layers[m.source].shape != target.layers[m.target].shape for m in matching.layers)
    lost = any(i.component == Component.UNET for i in matching.unplaced) and widths_differ(source, target)
    return reshaped or lost or (rho is not None and rho < CLOSE_COSINE)


def better_aligned(relation: Relation) -> bool:
    """Whether the channels that were found explain the weights better than the stored order does, where that means anything."""
    if relation.aligned is None:
        return False
    found, stored = relation.aligned.scores.layers, relation.scores.layers
    if any(m.target not in stored for m in relation.matching.layers):
        return True
    gains = [relation_of(found, m.target) - relation_of(stored, m.target) for m in relation.aligned.matching.layers]
    return bool(gains) and sum(gains) / len(gains) > MARGIN


def relation_of(scores: Mapping[LayerId, LayerScore], layer: LayerId) -> float:
    """ρ̂ of a layer; 0 where nothing was found."""
    return scores[layer].relation or 0.0 if layer in scores else 0.0
