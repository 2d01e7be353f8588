"""The rows of a batch as a table for a panel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from lorax.render import words
from lorax.render.markup import Markup, join, tag
from lorax.render.page import paragraph
from lorax.render.views import view

HEAD = ("adapter", "checkpoint", "result", "verdict", "modules", "energy", "time")
TONES = {"done": "good", "kept": "plain", "refused": "weak", "failed": "bad"}


class BatchRow(Protocol):
    """What became of one adapter on one target (`lorax.actions.Row`)."""

    @property
    def adapter(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def verdict(self) -> str: ...
    @property
    def modules(self) -> str: ...
    @property
    def energy_kept(self) -> float | None: ...
    @property
    def message(self) -> str: ...
    @property
    def seconds(self) -> float: ...


def rows_view(rows: Sequence[BatchRow], expected: int) -> str:
    """expected: how many rows there will be in the end."""
    counts = Counter(row.state for row in rows)
    told = ", ".join(f"{counts[state]} {state}" for state in TONES if counts[state])
    head = tag("tr", *(tag("th", title, scope="col") for title in HEAD))
    table = tag("table", tag("thead", head), tag("tbody", *(_row(row) for row in rows)))
    return view(paragraph(f"{len(rows)} of {expected}{': ' + told if told else ''}", quiet=True), tag("div", table, class_="wide"))


def _row(row: BatchRow) -> Markup:
    verdict = words.VERDICTS[row.verdict][0] if row.verdict in words.VERDICTS else "–"
    cells = [row.adapter, row.target, tag("span", row.state, class_=f"chip {TONES.get(row.state, 'plain')}"), verdict, row.modules]
    cells += [words.share_to_text(row.energy_kept), words.duration(row.seconds) if row.seconds else "–"]
    line = tag("tr", *(tag("td", cell) for cell in cells), class_="follows" if row.message else None)
    return join(line, tag("tr", tag("td", row.message, class_="long soft small", colspan=len(HEAD))) if row.message else "")
