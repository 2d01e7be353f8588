"""Decide everything before a delta is touched: adapter + bases + settings → `TransferPlan`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lorax.adapter import Adapter, AdapterModule, LowRank, Spectral
from lorax.checkpoint import Checkpoint
from lorax.errors import NotTransferable
from lorax.layers import Component, LayerId
from lorax.transfer.align import Alignment
from lorax.transfer.checks import (
    check_families,
    check_made_for,
    check_not_aligned,
    check_not_retargeted,
    check_works_without_source,
)
from lorax.transfer.decide import Decider, filtered
from lorax.transfer.kept import related
from lorax.transfer.match import Matching
from lorax.transfer.relate import Relation, better_aligned, with_alignment
from lorax.transfer.score import Scores
from lorax.transfer.types import (
    UNSCORED,
    LayerDecision,
    LayerMatch,
    Progress,
    TransferPlan,
    TransferSettings,
    no_progress,
)
from lorax.transfer.verdict import judge, model_cosine


def plan_transfer(
    adapter: Adapter,
    source: Checkpoint | None,
    target: Checkpoint,
    settings: TransferSettings | None = None,
    relation: Relation | None = None,
    progress: Progress = no_progress,
    relations: Path | None = None,
) -> TransferPlan:
    """Match, score and decide; nothing is written and no delta is computed.

    relation: what `relate` found for the same two bases and at least these layers, to share it between many adapters.
    relations: a folder where such things are kept for the next time.

    The verdict "not transferable" is a plan like any other; `run_plan` refuses it. Raises `NotTransferable` for different
    families, `SourceNeeded` where nothing can be decided without the source, `BaseMismatch` where `source` cannot be it.
    """
    settings = settings or TransferSettings()
    check_families(adapter, source, target)
    check_not_retargeted(adapter, settings)
    left_out = {i: reason for i in adapter.modules if (reason := filtered(i, adapter, settings))}
    wanted = [i for i in adapter.modules if i not in left_out]
    if not wanted:
        raise NotTransferable("the filters (--only, --skip, --components) leave no layer of the adapter: loosen them")
    if source is None:
        check_works_without_source(adapter, wanted, target, settings)
        check_not_aligned(adapter, settings)
        matching, scores, alignment = match_by_name(wanted, target), Scores({}, None), None
    else:
        strangers = check_made_for(adapter, wanted, source)
        left_out |= strangers
        wanted = [i for i in wanted if i not in strangers]
        relation = relation or related(source, target, wanted, settings.device, progress, settings.method, relations)
        if settings.method == "align" and relation.aligned is None:
            relation = with_alignment(relation, source, target, wanted, settings.device, progress)
        matching, scores, alignment = chosen(relation, settings, wanted)
    decide = Decider(adapter, source, target, settings, alignment)
    decisions = [decide.match(m, scores.layers.get(m.target, UNSCORED)) for m in matching.layers]
    decisions += [LayerDecision(i, None, "skip", reason) for i, reason in {**matching.unplaced, **left_out}.items()]
    decisions.sort(key=lambda d: (str(d.source), str(d.target)))
    in_unet = any(i.component == Component.UNET for i in wanted)
    judgement = judge(source, target, scores.layers, sum(fits(d) for d in decisions), alignment if in_unet else None, in_unet)
    method, method_reason = describe_method(decisions, adapter, source, settings)
    return TransferPlan(
        settings=settings,
        method=method,
        method_reason=method_reason,
        verdict=judgement.verdict,
        verdict_reason=judgement.reason,
        family=target.arch.family,
        source_name=source.name if source else None,
        target_name=target.name,
        adapter_name=adapter.name,
        decisions=tuple(decisions),
        units=matching.units,
        cosine=model_cosine(scores.layers),
        atc=scores.atc,
        notes=tuple(notes(adapter, source, target)),
        alignment=alignment,
    )


def chosen(relation: Relation, settings: TransferSettings, wanted: Sequence[LayerId]) -> tuple[Matching, Scores, Alignment | None]:
    """The matches and scores that the method goes by, for the layers `wanted`, and the alignment if it is used."""
    aligned = relation.aligned
    use = aligned is not None and (settings.method == "align" or (settings.method == "auto" and better_aligned(relation)))
    matching, scores = (aligned.matching, aligned.scores) if use and aligned is not None else (relation.matching, relation.scores)
    matching = matching.narrowed(wanted)
    kept = {m.target: scores.layers[m.target] for m in matching.layers if m.target in scores.layers}
    return matching, Scores(kept, scores.atc), aligned.alignment if use and aligned is not None else None


def fits(decision: LayerDecision) -> bool:
    """Whether a layer has a place, be it gated or not: a gate says nothing about the bases as a whole."""
    return decision.action != "skip" or decision.score is not UNSCORED


def match_by_name(wanted: Sequence[LayerId], target: Checkpoint) -> Matching:
    """All that can be done without the source."""
    placed = tuple(LayerMatch(i, i) for i in wanted if i in target.layers)
    return Matching(placed, (), {i: absent(i, target) for i in wanted if i not in target.layers})


def absent(layer: LayerId, target: Checkpoint) -> str:
    return "no such layer in the target" if layer.component in target.components else f"the target has no {layer.component}"


def describe_method(
    decisions: Sequence[LayerDecision], adapter: Adapter, source: Checkpoint | None, settings: TransferSettings
) -> tuple[str, str]:
    """The method in one word, and why it was taken."""
    actions = {d.action for d in decisions if d.action != "skip" and not d.score.same_weights} or {
        d.action for d in decisions if d.action != "skip"
    }
    method = "mixed" if len(actions) > 1 else next(iter(actions), "none")
    if settings.method != "auto":
        return method, "asked for"
    if "align" in actions:
        return "align", "the target has other channels than the source; those that match were found by the weights of both"
    if adapter.native:
        return method, "a native LoRA-X adapter lives in the base's singular subspaces and survives their projection"
    why = "an ordinary LoRA loses its style when projected, and a copy is what related bases need"
    return method, why if source else why + "; the source was not given, so nothing could be checked"


def notes(adapter: Adapter, source: Checkpoint | None, target: Checkpoint) -> list[str]:
    """Facts that the user should know before running the plan."""
    found: list[str] = []
    if adapter.offsets:
        found.append(f"{len(adapter.offsets)} bias or norm offsets have no place in a standard LoRA and are left out; `bake` applies them")
    kinds = kinds_that_fold(adapter.modules)
    if kinds:
        found.append(f"{', '.join(kinds)} modules are folded into a delta and factored anew; the energy kept says what that costs")
    predictions = {c.prediction_type for c in (source, target) if c is not None and c.prediction_type}
    if len(predictions) > 1:
        found.append(f"the two bases predict differently ({' and '.join(sorted(predictions))}): expect a weaker effect")
    return found


def kinds_that_fold(modules: Mapping[LayerId, AdapterModule]) -> list[str]:
    return sorted({m.kind for m in modules.values() if not isinstance(m, LowRank | Spectral)})
