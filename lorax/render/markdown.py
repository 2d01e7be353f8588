"""A transfer's report as Markdown, for notes and issue threads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from lorax.errors import one_line
from lorax.render import words
from lorax.render.grid import block_title
from lorax.transfer.types import TransferReport

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|!&~])")


def to_markdown(report: TransferReport) -> str:
    """The report, ending in a newline."""
    plan = report.plan
    title, _, meaning = words.verdict(plan)
    parts = [
        f"# {text(plan.adapter_name)} → {text(plan.target_name)}",
        f"**{title}.** {meaning} {text(words.sentence(plan.verdict_reason))}".rstrip(),
        f"{words.METHODS.get(plan.method, text(plan.method))} {text(words.sentence(plan.method_reason))}".rstrip(),
        table(("", ""), _numbers(report)),
        "## What was done",
        table(
            ("action", "layers", "reason"),
            [(words.ACTIONS.get(g.action, g.action), str(len(g.decisions)), g.reason) for g in words.groups(plan.decisions)],
        ),
        *(f"- {text(note)}" for note in plan.notes),
        *_left_out(report),
        *_unmatched(report.unmatched),
        "## Settings",
        table(("", ""), words.setting_rows(plan.settings)),
    ]
    return "\n\n".join(parts) + "\n"


def text(raw: str) -> str:
    """Text from a file, with everything that Markdown or HTML would read as markup made plain."""
    return _SPECIAL.sub(r"\\\1", one_line(raw))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; every cell is escaped."""
    lines = [head, ["---"] * len(head), *([text(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _numbers(report: TransferReport) -> list[tuple[str, str]]:
    plan = report.plan
    rows = [
        ("source base", plan.source_name or "not given"),
        ("target base", plan.target_name),
        ("modules carried", f"{report.modules_out} of {report.modules_in}"),
        ("energy kept", words.share_to_text(report.energy_kept)),
    ]
    typical = words.typical_similarity(plan.decisions)
    if typical:
        rows.append(("similarity above chance", f"{words.number(typical[0])} (median), {words.number(typical[1])} (worst)"))
    if plan.cosine is not None:
        rows.append(("cosine of the weights", words.number(plan.cosine)))
    if plan.atc is not None:
        rows.append(("cost (ATC), left and right", f"{words.number(plan.atc.left)}, {words.number(plan.atc.right)}"))
    rows += [("written to", report.output or "nothing was written"), ("time", words.duration(report.seconds)), *report.extra.items()]
    return rows


def _left_out(report: TransferReport) -> list[str]:
    found = words.left_out(report.plan.decisions)
    if not found:
        return []
    rows = [(block_title(g.block), str(len(g.layers)), g.reason) for g in found]
    return ["## Left out", table(("block", "layers", "reason"), rows)]


def _unmatched(unmatched: Sequence[tuple[str, str]]) -> list[str]:
    return ["## Keys that could not be placed", table(("key", "reason"), unmatched)] if unmatched else []
