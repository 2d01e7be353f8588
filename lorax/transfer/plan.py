"""Decide everything before a delta is touched: adapter + bases + settings → `TransferPlan`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from lorax.adapter import Adapter, AdapterModule, LowRank, Spectral
from lorax.checkpoint import Checkpoint
from lorax.errors import BaseMismatch, MalformedAdapter, NotTransferable, SourceNeeded
from lorax.layers import Component, LayerId, LayerSpec
from lorax.structure.names import kohya_name
from lorax.transfer.align import Alignment
from lorax.transfer.kept import related
from lorax.transfer.match import Matching
from lorax.transfer.relate import Relation, better_aligned, with_alignment
from lorax.transfer.score import Scores
from lorax.transfer.types import (
    DEFAULT_K,
    DEFAULT_MIN_SIMILARITY,
    UNSCORED,
    LayerDecision,
    LayerMatch,
    LayerScore,
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


def check_families(adapter: Adapter, source: Checkpoint | None, target: Checkpoint) -> None:
    if source is not None and source.arch.family != adapter.family:
        raise BaseMismatch(
            f"the adapter '{adapter.name}' is for {adapter.family}, but the source '{source.name}' is {source.arch.family} "
            f"({source.arch.title}): give the base that it was trained on"
        )
    if target.arch.family != adapter.family:
        raise NotTransferable(
            f"the adapter '{adapter.name}' is for {adapter.family}, but the target '{target.name}' is {target.arch.family} "
            f"({target.arch.title}): their layers have nothing in common, so choose a target of the family {adapter.family}"
        )


def check_not_retargeted(adapter: Adapter, settings: TransferSettings) -> None:
    if adapter.retargeted and not settings.force:
        raise NotTransferable(
            f"'{adapter.name}' is itself the result of a transfer, and every transfer loses something: "
            "transfer the original adapter instead, or use --force"
        )


def check_not_aligned(adapter: Adapter, settings: TransferSettings) -> None:
    if settings.method == "align":
        raise SourceNeeded(
            f"aligning '{adapter.name}' compares the weights of both bases: give the base that it was trained on with --source"
        )


def check_works_without_source(adapter: Adapter, wanted: Sequence[LayerId], target: Checkpoint, settings: TransferSettings) -> None:
    """Without the source: blocks must be the target's own, and every delta must be known without its base."""
    needy = sorted({m.kind for i, m in adapter.modules.items() if i in set(wanted) and m.needs_base})
    if needy and all(adapter.modules[i].needs_base for i in wanted):
        raise SourceNeeded(
            f"'{adapter.name}' holds {', '.join(needy)} modules, which mean nothing without the base that they were trained on: "
            "give it with --source"
        )
    specs = adapter.arch.specs()
    mine = transformer_blocks(specs[i] for i in adapter.modules)
    theirs = transformer_blocks(layer.spec for layer in target.layers.values())
    made_for_it = adapter.arch.unet == target.arch.unet or mine == theirs or not any(i.component == Component.UNET for i in wanted)
    if not made_for_it and not settings.force:
        raise SourceNeeded(
            f"'{adapter.name}' is for {adapter.arch.title}, but '{target.name}' is {target.arch.title} with other blocks: "
            "give the source base with --source, so that blocks can be matched (by name they would go to the wrong places)"
        )


def transformer_blocks(specs: Iterable[LayerSpec]) -> set[str]:
    return {s.unit.path for s in specs if s.unit.kind == "transformer"}


def check_made_for(adapter: Adapter, wanted: Sequence[LayerId], source: Checkpoint) -> dict[LayerId, str]:
    """Layers that `source` lacks or has in another shape, with the reason; most of them means that it is not the source."""
    strangers: dict[LayerId, str] = {}
    for i in wanted:
        layer = source.layers.get(i)
        if layer is None:
            strangers[i] = "the source has no such layer"
        elif not adapter.modules[i].fits(layer.shape):
            strangers[i] = f"made for a weight of shape {adapter.modules[i].shape}, but the source's is {layer.shape}"
    if len(strangers) * 2 > len(wanted):
        example, reason = next(iter(strangers.items()))
        raise BaseMismatch(
            f"'{adapter.name}' was not made for '{source.name}': {len(strangers)} of its {len(wanted)} layers do not fit "
            f"({example}: {reason}); give the base that it was trained on"
        )
    return strangers


def match_by_name(wanted: Sequence[LayerId], target: Checkpoint) -> Matching:
    """All that can be done without the source."""
    placed = tuple(LayerMatch(i, i) for i in wanted if i in target.layers)
    return Matching(placed, (), {i: absent(i, target) for i in wanted if i not in target.layers})


def absent(layer: LayerId, target: Checkpoint) -> str:
    return "no such layer in the target" if layer.component in target.components else f"the target has no {layer.component}"


def filtered(layer: LayerId, adapter: Adapter, settings: TransferSettings) -> str:
    """Why the user's filters leave this layer out, or an empty string."""
    names = str(layer), kohya_name(adapter.arch, layer)
    if settings.components is not None and layer.component not in settings.components:
        return f"left out: component {layer.component}"
    if settings.only and not any(selects(p, n) for p in settings.only for n in names):
        return "left out by --only"
    if any(selects(p, n) for p in settings.skip for n in names):
        return "left out by --skip"
    return ""


def selects(pattern: str, name: str) -> bool:
    """`fnmatch`, or a plain substring where the pattern has no wildcard."""
    return fnmatchcase(name, pattern) if any(c in pattern for c in "*?[") else pattern in name


@dataclass(frozen=True)
class Decider:
    """What to do with one matched layer."""

    adapter: Adapter
    source: Checkpoint | None
    target: Checkpoint
    settings: TransferSettings
    alignment: Alignment | None = None

    def match(self, match: LayerMatch, score: LayerScore) -> LayerDecision:
        module, layer = self.adapter.modules[match.source], self.target.layers[match.target]
        shape = self.source.layers[match.source].shape if self.source else None

        def skip(reason: str) -> LayerDecision:
            return LayerDecision(match.source, match.target, "skip", reason, score=score)

        if self.source is None and module.needs_base:
            return skip(f"a {module.kind} module needs its source base: give it with --source")
        gate = self.gate()
        if gate is not None and not score.same_weights and score.similarity is not None and score.similarity < gate:
            return skip(f"similarity above chance is under the gate of {gate:.2f}")
        if self.alignment is not None:
            return self.align(match, score) if self.alignment.covers(match.target) else skip("its channels have no map")
        if shape not in (None, layer.shape) or not module.fits(layer.shape):
            return skip(
                f"shapes disagree: {shape or module.shape} in the source, {layer.shape} in the target; different widths need alignment"
            )
        return self.carry(match, module, layer.shape, score)

    def align(self, match: LayerMatch, score: LayerScore) -> LayerDecision:
        """By the channels' maps, which change nothing where the channels are the same."""
        if self.alignment is None or not self.alignment.changes(match.target):
            reason = "same weights in both bases" if score.same_weights else "same channels in both bases"
            return LayerDecision(match.source, match.target, "copy", reason, score=score)
        return LayerDecision(match.source, match.target, "align", "carried to the channels that match its own", score=score)

    def carry(self, match: LayerMatch, module: AdapterModule, shape: tuple[int, ...], score: LayerScore) -> LayerDecision:
        native = self.adapter.native
        if score.same_weights:
            return LayerDecision(match.source, match.target, "copy", "same weights in both bases", score=score)
        if self.settings.method == "copy" or (self.settings.method == "auto" and native is None):
            reason = "asked for" if self.settings.method == "copy" else "an ordinary adapter between relatives is copied"
            return LayerDecision(match.source, match.target, "copy", reason, score=score)
        k = self.settings.k or (native.k if native else DEFAULT_K)
        sides = shape[0], math.prod(shape[1:])
        whole = " (the whole space: the same as a copy)" if k >= max(sides) else ""
        return LayerDecision(match.source, match.target, "project", f"projected at k={min(k, *sides)}{whole}", k, score)

    def gate(self) -> float | None:
        """The gate in force; copying by name is the plain control, and forcing means to see what comes."""
        if self.settings.min_similarity is not None:
            return self.settings.min_similarity
        return None if self.settings.method == "copy" or self.settings.force or self.alignment else DEFAULT_MIN_SIMILARITY


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


def require_transferable(plan: TransferPlan) -> None:
    """Raise `NotTransferable` for a plan whose verdict says so, unless the user forces it."""
    if plan.verdict == "not transferable" and not plan.settings.force:
        raise NotTransferable(
            f"{plan.adapter_name} → {plan.target_name}: {plan.verdict_reason}; --force writes it all the same, as an experiment"
        )
    if not plan.placed:
        raise MalformedAdapter(f"{plan.adapter_name} → {plan.target_name}: no layer is left to write; {skip_summary(plan)}")


def skip_summary(plan: TransferPlan) -> str:
    """The most frequent reason for skipping, as a phrase."""
    reasons = [d.reason for d in plan.decisions if d.action == "skip"]
    most = max(set(reasons), key=reasons.count) if reasons else "the adapter is empty"
    return f"most often: {most}"
