"""A transfer's summary as plain text for a terminal: what happened first, numbers after, nothing that needs colour."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lorax.errors import one_line
from lorax.render import words
from lorax.render.blockmap import block_name, stages
from lorax.transfer.types import TransferPlan, TransferReport, UnitMatch

SHOWN = 6
"""Reasons and keys named in full; the rest is counted."""


def to_text(report: TransferReport) -> str:
    """The summary of a transfer that was run, without a final newline."""
    plan = report.plan
    lines = [
        *_opening(plan),
        ("modules", f"{report.modules_out} of {report.modules_in} written"),
        ("energy kept", words.share_to_text(report.energy_kept)),
        *_likeness(plan),
        *_left_out(plan),
        *_unmatched(report.unmatched),
        *(("note", note) for note in plan.notes),
        ("time", words.duration(report.seconds)),
    ]
    if report.output:
        lines.append(("wrote", report.output))
    return columns(lines)


def plan_to_text(plan: TransferPlan, unmatched: Sequence[tuple[str, str]] = ()) -> str:
    """The summary of a plan: what a transfer would do."""
    lines = [
        *_opening(plan),
        ("modules", f"{len(plan.placed)} of {plan.modules_in} would be written"),
        *_likeness(plan),
        *((words.ACTIONS[g.action], _reason(len(g.decisions), g.reason)) for g in words.groups(plan.decisions) if g.action != "skip"),
        *_left_out(plan),
        *_unmatched(unmatched),
        *(("note", note) for note in plan.notes),
        ("dry run", "nothing was written"),
    ]
    return columns(lines)


def columns(lines: Iterable[tuple[str, str]]) -> str:
    """Names on the left, texts on the right; a name that repeats is written once. Every text is put on one line."""
    listed = list(lines)
    width = max((len(name) for name, _ in listed), default=0)
    shown: list[str] = []
    before = ""
    for name, text in listed:
        shown.append(f"{'' if name == before else name:<{width}}  {one_line(text)}".rstrip())
        before = name
    return "\n".join(shown)


def _opening(plan: TransferPlan) -> list[tuple[str, str]]:
    title = words.verdict(plan)[0]
    return [
        ("adapter", plan.adapter_name),
        ("from", plan.source_name or "a base that was not given"),
        ("to", plan.target_name),
        ("verdict", f"{title}: {plan.verdict_reason}" if plan.verdict_reason else title),
        ("method", f"{plan.method}: {plan.method_reason}" if plan.method_reason else plan.method),
    ]


def _likeness(plan: TransferPlan) -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    typical = words.typical_similarity(plan.decisions)
    if typical:
        lines.append(("similarity", f"{words.number(typical[0])} above chance (median), worst layer {words.number(typical[1])}"))
    if plan.cosine is not None:
        lines.append(("cosine", f"{words.number(plan.cosine)} between matched weights"))
    if plan.atc is not None:
        atc = plan.atc
        balanced = f"balanced {words.number(atc.balanced_left)}, {words.number(atc.balanced_right)}"
        lines.append(("cost (ATC)", f"{words.number(atc.left)} left, {words.number(atc.right)} right; {balanced}"))
    return [*lines, *block_map_lines(plan.units, words.lost_blocks(plan))]


def block_map_lines(units: Sequence[UnitMatch], lost: Sequence[str]) -> list[tuple[str, str]]:
    """A line for each stage whose blocks did not simply go to the block of the same name: ``target ← source``."""
    lines: list[tuple[str, str]] = []
    for stage in stages(units, lost):
        ties = ", ".join(f"{block_name(t)} ← {block_name(s)}" for s, t, _ in stage.ties)
        if not stage.plain and stage.target:
            lines.append(("block map", f"{stage.title}, {stage.kind}s {len(stage.source)} → {len(stage.target)}: {ties or 'none matches'}"))
    return lines


def _left_out(plan: TransferPlan) -> list[tuple[str, str]]:
    found = [g for g in words.groups(plan.decisions) if g.action == "skip"]
    lines = [("left out", _reason(len(g.decisions), g.reason)) for g in found[:SHOWN]]
    rest = sum(len(g.decisions) for g in found[SHOWN:])
    return [*lines, ("left out", f"{words.count(rest, 'layer')} for other reasons (see --report)")] if rest else lines


def _unmatched(unmatched: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    lines = [("not placed", f"{key}: {reason}") for key, reason in unmatched[:SHOWN]]
    rest = len(unmatched) - SHOWN
    return [*lines, ("not placed", f"{words.count(rest, 'more key', 'more keys')} (see --report)")] if rest > 0 else lines


def _reason(n: int, reason: str) -> str:
    return f"{words.count(n, 'layer')}: {reason}" if reason else words.count(n, "layer")
