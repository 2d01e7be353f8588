"""Parts of a page for the panels: what a transfer would do or did, as one element with the class of `panel_style`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lorax.render import words
from lorax.render.figures import HOW_TO_READ, block_map_section, map_figure
from lorax.render.heatmap import HATCH, step
from lorax.render.html import all_layers, left_out_section, similarity_cells, unmatched_section, what_was_done
from lorax.render.markup import Markup, join, tag
from lorax.render.page import definitions, fold, paragraph, tile, tiles, verdict_card
from lorax.render.similarity import similarity_body
from lorax.transfer.compare import SimilarityReport
from lorax.transfer.types import Atc, TransferReport

ROOT = "lorax-view"


def view(*children: str) -> str:
    """What a panel shows; empty for nothing."""
    return tag("div", *children, class_=ROOT) if any(children) else ""


def hatch() -> str:
    """The pattern of what was left out, for all pictures of a page: one that is hidden would not be drawn from."""
    return tag("div", tag("svg", HATCH, width=0, height=0, aria_hidden="true"), class_=ROOT, style="height:0")


def error_view(line: str) -> str:
    """An error, in its one line."""
    return view(tag("div", tag("b", "Not done. "), line if line.endswith((".", "?")) else f"{line}.", class_="error", role="alert"))


def told_view(line: str) -> str:
    """A sentence that is neither result nor error."""
    return view(tag("div", line, class_="told")) if line else ""


def progress_view(text: str, share: float, seconds_left: float | None) -> str:
    """A bar with what is being done and how long it will still take."""
    left = "" if seconds_left is None else f" · {words.duration(seconds_left)} left"
    bar = tag("div", tag("i", style=f"width:{share:.1%}"), class_="bar", role="progressbar", aria_valuenow=str(round(share * 100)))
    return view(bar, tag("div", f"{share:.0%} · {text}{left}", class_="soft small"))


def transfer_view(report: TransferReport, extra: Sequence[str] = ()) -> str:
    """A transfer: of a plan that was not run the parts that only a run can tell are left away. extra: more sentences."""
    return view(transfer_body(report, extra))


def transfer_body(report: TransferReport, extra: Sequence[str] = ()) -> Markup:
    plan = report.plan
    title, tone, meaning = words.verdict(plan)
    cells = similarity_cells(report)
    figure = join(paragraph(HOW_TO_READ, quiet=True), map_figure(cells, "map", "Similarity above chance")) if cells else ""
    return join(
        tag("p", f"{plan.adapter_name}: {plan.source_name or 'a base that is not known'} → {plan.target_name}", class_="soft small"),
        verdict_card(title, tone, meaning, words.sentence(plan.verdict_reason), *extra, _written(report)),
        _numbers(report),
        what_was_done(plan, done=bool(report.output)),
        left_out_section(plan),
        unmatched_section(report.unmatched),
        fold("Layer by layer: how alike the two bases are", figure) if figure else "",
        fold("Which block became which", block_map_section(plan.units, words.lost_blocks(plan))) if plan.units else "",
        fold("Every layer in numbers", all_layers(report)) if report.output else "",
        fold("Where it comes from", definitions([("written to", report.output), *report.extra.items()])) if report.output else "",
    )


def _written(report: TransferReport) -> str:
    return f"Written: {Path(report.output).name}, in {words.duration(report.seconds)}." if report.output else ""


def _numbers(report: TransferReport) -> Markup:
    plan = report.plan
    count = report.modules_out if report.results else len(plan.placed)
    kept = words.share_to_text(report.energy_kept) if report.results else "–"
    shown = [
        tile(f"{count} of {plan.modules_in}", "modules placed", words.EXPLAIN_CARRIED),
        tile(kept, "energy kept", words.EXPLAIN_ENERGY if report.results else "Projections take time: the run will tell."),
    ]
    typical = words.typical_similarity(plan.decisions)
    if typical:
        worst = f" The worst layer has {words.number(typical[1])}."
        shown.append(tile(words.number(typical[0]), "median similarity", words.EXPLAIN_SIMILARITY + worst))
    if plan.atc is not None:
        shown.append(tile(f"{words.number(plan.atc.left)} / {words.number(plan.atc.right)}", "cost (ATC), both sides", words.EXPLAIN_ATC))
    return tiles(*shown)


def similarity_view(report: SimilarityReport) -> str:
    """Two bases compared."""
    pair = tag("p", f"{report.source_name} and {report.target_name}", class_="soft small")
    return view(pair, similarity_body(report))


def matrix_view(names: Sequence[str], costs: Mapping[tuple[int, int], Atc | str]) -> str:
    """The transferability cost from every base (row) to every other (column), left and right; a text stands where there is none."""
    head = tag("tr", tag("th", "from ↓ to →", scope="col"), *(tag("th", n, scope="col") for n in names))
    rows = [
        tag("tr", tag("th", name, scope="row"), *(_cost(costs.get((i, j)), i == j) for j in range(len(names))))
        for i, name in enumerate(names)
    ]
    table = tag("table", tag("thead", head), tag("tbody", *rows), class_="matrix")
    return view(
        tag("h2", "Transferability cost"),
        paragraph(f"{words.EXPLAIN_ATC} Each cell: left / right; teal is easy, sand is hard.", quiet=True),
        tag("div", table, class_="wide"),
    )


def _cost(cost: Atc | str | None, same: bool) -> Markup:
    if same:
        return tag("td", "–")
    if cost is None or isinstance(cost, str):
        return tag("td", "none" if cost else "…", title=cost or None)
    tip = f"balanced: {words.number(cost.balanced_left)} / {words.number(cost.balanced_right)}"
    shade = step(1 - (cost.left + cost.right) / 2)
    text = f"{words.number(cost.left)} / {words.number(cost.right)}"
    return tag("td", text, class_=f"h{shade}{' lit' if shade > 5 else ''}", title=tip)
