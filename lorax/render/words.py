"""What every form of a report says: verdicts, methods and numbers in plain words, and the decisions grouped for reading."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from lorax.layers import Component, LayerId
from lorax.render.grid import block_of, place
from lorax.transfer.types import LayerDecision, LayerResult, TransferPlan, TransferReport, TransferSettings, Verdict

VERDICTS: Mapping[str, tuple[str, str, str]] = {
    "same base": ("Made for this", "good", "Both bases hold the same weights where this adapter acts, so nothing changes for it."),
    "should work": (
        "Should work",
        "good",
        "The bases are close relatives where this adapter acts; expect it to do on the target what it does on its source.",
    ),
    "weak": (
        "Weak: distill it",
        "weak",
        "The bases are related, but something that matters differs; weights alone carry a part of the effect, distillation (training on "
        "the models' own samples) carries more.",
    ),
    "unchecked": ("Unchecked", "plain", "Nothing could be compared; that names and shapes fit is all that is known."),
    "not transferable": (
        "Not transferable by weights",
        "bad",
        "The bases share too little where this adapter acts: what weights alone write is an experiment. Distillation (training on the "
        "models' own samples) may still carry its effect.",
    ),
}
"""Verdict → (headline, tone, one sentence)."""

RELATIONS: Mapping[Verdict, tuple[str, str, str]] = {
    "same base": ("The same weights.", "good", "An adapter of one does the same on the other."),
    "should work": ("Close relatives.", "good", "Adapters of one can be expected to act on the other as they do on their own base."),
    "weak": (
        "Relatives, with a difference.",
        "weak",
        "They share an origin, but something that matters differs; weights alone carry a part of an adapter's effect.",
    ),
    "unchecked": ("Not comparable.", "plain", "Nothing can be said of adapters that go from one to the other."),
    "not transferable": ("Unrelated.", "bad", "Adapters will not carry over by weights alone."),
}
"""The verdict on a transfer between two bases, where these are what is looked at."""

METHODS: Mapping[str, str] = {
    "align": "Every delta is carried to those channels of the target that match its own, as the weights of both bases tell them.",
    "project": "Every delta is projected onto the leading singular directions of the target's own weights.",
    "copy": "The adapter's deltas are carried over unchanged, each to the target layer that matches its own.",
    "none": "No layer is carried over.",
    "mixed": "Some layers are projected onto the target's leading singular directions or carried to the channels that match, others are "
    "carried over unchanged.",
}

ACTIONS: Mapping[str, str] = {"align": "aligned", "project": "projected", "copy": "copied", "skip": "left out"}

EXPLAIN_ENERGY = "The share of the adapter's squared size that the written file holds; what is missing was cut off or left out."
EXPLAIN_SIMILARITY = "How much the two bases' leading directions agree, over chance: 0 is as good as unrelated, 1 identical."
EXPLAIN_ATC = "Adapter transferability cost, left and right: how far the layers of both bases are from pairing up; 0 is free, 1 hopeless."
EXPLAIN_CARRIED = "Modules of the adapter that have a place in the written file."
EXPLAIN_COSINE = "Mean cosine between matched weights, above chance where channels had to be found; 0 is unrelated, 1 the same."


def verdict(plan: TransferPlan) -> tuple[str, str, str]:
    """(headline, tone, sentence)"""
    return VERDICTS.get(plan.verdict, (plan.verdict, "plain", ""))


def share_to_text(value: float | None) -> str:
    """A share as per cent, never rounded up to a full hundred: 0.99996 → ``99.9 %``."""
    if value is None or not math.isfinite(value):
        return "–"
    if value <= 0:
        return "0 %"
    if value < 0.001:
        return "< 0.1 %"
    if value >= 1 - 1e-6:
        return f"{value:.0%}".replace("%", " %")
    return f"{min(math.floor(value * 1000) / 10, 99.9):.1f} %"


def number(value: float | None) -> str:
    """Two decimals, or a dash."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:.2f}"
    return "0.00" if text == "-0.00" else text


def duration(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``3 min 05 s``"""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def count(n: int, noun: str, many: str | None = None) -> str:
    """``1 layer``, ``2 layers``"""
    return f"{n} {noun if n == 1 else many or noun + 's'}"


@dataclass(frozen=True)
class Group:
    """Decisions that share an action and a reason."""

    action: str
    reason: str
    decisions: tuple[LayerDecision, ...]


def groups(decisions: Iterable[LayerDecision]) -> tuple[Group, ...]:
    """The decisions by action and reason: carried ones first, then the left out, each by size."""
    found: dict[tuple[str, str], list[LayerDecision]] = {}
    for decision in decisions:
        found.setdefault((decision.action, decision.reason), []).append(decision)
    made = [Group(action, reason, tuple(members)) for (action, reason), members in found.items()]
    return tuple(sorted(made, key=lambda g: (g.action == "skip", -len(g.decisions))))


@dataclass(frozen=True)
class LeftOut:
    """Layers of one block that were left out for one reason."""

    block: str
    side: str
    """``adapter``: a layer of the adapter has no place; ``target``: a layer of the target gets nothing."""
    reason: str
    layers: tuple[LayerId, ...]


def left_out(decisions: Iterable[LayerDecision]) -> tuple[LeftOut, ...]:
    """The skipped decisions by block and reason, in order of execution."""
    found: dict[tuple[str, str, str], list[LayerId]] = {}
    for decision in decisions:
        layer = decision.source or decision.target
        if decision.action == "skip" and layer is not None:
            side = "target" if decision.source is None else "adapter"
            found.setdefault((block_of(layer), side, decision.reason), []).append(layer)
    made = [LeftOut(*key, tuple(layers)) for key, layers in found.items()]
    return tuple(sorted(made, key=lambda g: (list(Component).index(g.layers[0].component), place(g.layers[0]), g.reason)))


def typical_similarity(decisions: Sequence[LayerDecision]) -> tuple[float, float] | None:
    """(median, worst) of Φ̂ over the scored layers, the smaller side of each; None where nothing was scored."""
    found = [s for d in decisions if (s := similarity_of(d)) is not None and math.isfinite(s)]
    return (median(found), min(found)) if found else None


def similarity_of(decision: LayerDecision) -> float | None:
    """Φ̂ of the smaller side; 1 where the weights are the same and nothing had to be measured."""
    found = decision.score.similarity
    return 1.0 if found is None and decision.score.same_weights else found


def lost_blocks(plan: TransferPlan) -> tuple[str, ...]:
    """Source blocks that no block of the target took, by the decisions on the adapter's layers."""
    taken = {u.source for u in plan.units}
    lost = [block_of(d.source) for d in plan.decisions if d.source is not None and d.target is None]
    mapped = {u.target.partition(".")[0] for u in plan.units}
    return tuple(block for block in dict.fromkeys(lost) if block not in taken and block.partition(".")[0] in mapped)


def describe(layer: LayerDecision, result: LayerResult | None) -> str:
    """One line on a layer for a tooltip."""
    score = layer.score
    parts = [str(layer.target or layer.source)]
    if layer.source is not None and layer.target is not None and layer.source != layer.target:
        parts.append(f"from {layer.source}")
    parts.append(f"{ACTIONS[layer.action]}: {layer.reason}" if layer.reason else ACTIONS[layer.action])
    if score.similarity is not None:
        parts.append(f"similarity {number(score.similarity_left)} left, {number(score.similarity_right)} right")
    if result is not None and layer.action != "skip":
        parts.append(f"energy kept {share_to_text(result.energy_kept)}, rank {result.rank}")
    return "\n".join(parts)


def setting_rows(settings: TransferSettings) -> tuple[tuple[str, str], ...]:
    """The settings in words, the untouched ones with what they mean."""
    gate = settings.min_similarity
    everything = settings.components is None
    rows = [
        ("method", settings.method),
        ("basis rank k", str(settings.k) if settings.k else "the adapter's own, else the default"),
        ("written rank r", f"at most {settings.out_rank}" if settings.out_rank else "as the adapter has it, else the default"),
        ("energy to keep", share_to_text(settings.out_energy) if settings.out_energy else "default"),
        ("similarity gate", number(gate) if gate is not None else "default"),
        ("only", ", ".join(settings.only) or "everything"),
        ("skip", ", ".join(settings.skip) or "nothing"),
        ("components", "all" if everything else ", ".join(str(c) for c in settings.components or ())),
        ("strength", f"{settings.strength:g}"),
        ("force", "yes" if settings.force else "no"),
        ("device", settings.device),
    ]
    return tuple(rows)


def pairs(report: TransferReport) -> list[tuple[LayerDecision, LayerResult | None]]:
    """Every decision of the plan with its result, in the plan's order."""
    found = {(r.decision.source, r.decision.target): r for r in report.results}
    return [(d, found.get((d.source, d.target))) for d in report.plan.decisions]


def sentence(text: str) -> str:
    """The text with a capital letter and a full stop."""
    text = text.strip()
    if not text:
        return ""
    return text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")


def brief(report: TransferReport) -> str:
    """How much was carried, in a few words."""
    return f"{report.modules_out} of {count(report.modules_in, 'module')} · energy kept {share_to_text(report.energy_kept)}"
