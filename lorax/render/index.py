"""A page that leads to several reports, each with its heat map in small."""

from __future__ import annotations

from collections.abc import Sequence

from lorax.render import words
from lorax.render.heatmap import HATCH
from lorax.render.markup import Markup, join, tag
from lorax.render.page import page, paragraph, section
from lorax.render.picture import thumbnail
from lorax.transfer.types import TransferReport

Entry = tuple[str, TransferReport]
"""(link to the full report, relative to the page; the report)"""


def index_to_html(title: str, paragraphs: Sequence[str], groups: Sequence[tuple[str, Sequence[Entry]]]) -> str:
    """The page. groups: (heading, its reports)."""
    defs = tag("svg", HATCH, width=0, height=0, aria_hidden="true", class_="defs")
    lead = [tag("p", text) for text in paragraphs]
    sections = [section(heading, tag("div", *(_card(*entry) for entry in entries), class_="cards")) for heading, entries in groups]
    hint = paragraph(
        "Each card opens its full report. The small map shows the U-Net layer by layer, from unrelated (sand) to alike (teal).", quiet=True
    )
    return page(title, defs, tag("header", tag("h1", title)), *lead, *sections, hint)


def _card(link: str, report: TransferReport) -> Markup:
    plan = report.plan
    headline, tone, _ = words.verdict(plan)
    return tag(
        "a",
        tag("div", thumbnail(report), class_="shot"),
        tag("div", tag("b", plan.adapter_name), join(" → ", plan.target_name), class_="name"),
        tag("span", headline, class_=f"chip {tone}"),
        tag("p", f"{plan.method} · {words.brief(report)}"),
        href=link,
        class_="card",
    )
