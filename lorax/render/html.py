"""A transfer's report as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence

from lorax.render import words
from lorax.render.figures import HOW_TO_READ, block_map_section, map_figure
from lorax.render.grid import block_title
from lorax.render.heatmap import Cell
from lorax.render.markup import Markup, join, tag
from lorax.render.page import code, definitions, fold, page, paragraph, section, table, tile, tiles, verdict_card
from lorax.transfer.types import TransferPlan, TransferReport

SHOWN_ROWS = 24
"""Longer lists are folded."""


def to_html(report: TransferReport) -> str:
    """The whole page."""
    plan = report.plan
    title, tone, meaning = words.verdict(plan)
    return page(
        f"{plan.adapter_name} → {plan.target_name}",
        _header(report),
        verdict_card(title, tone, meaning, words.sentence(plan.verdict_reason)),
        _numbers(report),
        what_was_done(plan),
        _maps(report),
        block_map_section(plan.units, words.lost_blocks(plan)),
        left_out_section(plan),
        unmatched_section(report.unmatched),
        all_layers(report),
        _settings(report),
        tag("footer", "This page is one file: it runs no script and needs no network."),
    )


def similarity_cells(report: TransferReport) -> list[Cell]:
    """One cell for each layer of the target, coloured by similarity above chance."""
    return [
        Cell(d.target, words.similarity_of(d), words.describe(d, r), d.action == "skip")
        for d, r in words.pairs(report)
        if d.target is not None
    ]


def energy_cells(report: TransferReport) -> list[Cell]:
    """One cell for each layer of the target, coloured by the share of energy kept."""
    return [
        Cell(d.target, r.energy_kept if r else None, words.describe(d, r), d.action == "skip")
        for d, r in words.pairs(report)
        if d.target is not None
    ]


def _header(report: TransferReport) -> Markup:
    plan = report.plan
    origin = f"made for {plan.source_name}" if plan.source_name else "made for a base that was not at hand"
    return tag(
        "header",
        tag("p", "LoRA transfer", class_="eyebrow"),
        tag("h1", plan.adapter_name, tag("span", " → ", class_="to"), plan.target_name),
        tag("p", f"{origin} · {plan.family} · {words.duration(report.seconds)}"),
    )


def _numbers(report: TransferReport) -> Markup:
    plan = report.plan
    shown = [
        tile(f"{report.modules_out} of {report.modules_in}", "modules carried", words.EXPLAIN_CARRIED),
        tile(words.share_to_text(report.energy_kept), "energy kept", words.EXPLAIN_ENERGY),
    ]
    typical = words.typical_similarity(plan.decisions)
    if typical:
        worst = f" The worst layer has {words.number(typical[1])}."
        shown.append(tile(words.number(typical[0]), "median similarity", words.EXPLAIN_SIMILARITY + worst))
    if plan.cosine is not None:
        shown.append(tile(words.number(plan.cosine), "weight cosine", words.EXPLAIN_COSINE))
    if plan.atc is not None:
        value = f"{words.number(plan.atc.left)} / {words.number(plan.atc.right)}"
        shown.append(tile(value, "cost (ATC), both sides", words.EXPLAIN_ATC))
    return tiles(*shown)


def what_was_done(plan: TransferPlan, done: bool = True) -> Markup:
    """Method, actions and reasons. done: it was, or it would be."""
    rows = [(_chip(g.action), words.count(len(g.decisions), "layer"), g.reason) for g in words.groups(plan.decisions)]
    notes = [tag("ul", *(tag("li", note) for note in plan.notes), class_="notes")] if plan.notes else []
    return section(
        "What was done, and why" if done else "What would be done, and why",
        paragraph(f"{words.METHODS.get(plan.method, plan.method)} {words.sentence(plan.method_reason)}"),
        table(("action", "how many", "reason"), rows),
        *notes,
    )


def _chip(action: str) -> Markup:
    tone = {"align": "good", "project": "good", "copy": "plain", "skip": "weak"}.get(action, "plain")
    return tag("span", words.ACTIONS.get(action, action), class_=f"chip {tone}")


def _maps(report: TransferReport) -> Markup:
    cells = similarity_cells(report)
    if not cells:
        return Markup("")
    similarity = map_figure(cells, "map-1", "Similarity above chance, layer by layer", "0 · as good as unrelated", "1 · identical")
    if not any(d.action in ("align", "project") for d in report.plan.decisions):
        return section("Layer by layer: how alike the two bases are", paragraph(HOW_TO_READ, quiet=True), tag("div", similarity))
    energy = map_figure(energy_cells(report), "map-2", "Energy kept, layer by layer", "nothing kept", "everything kept")
    if not any(c.value is not None for c in cells):
        return section("Layer by layer: the energy that was kept", paragraph(HOW_TO_READ, quiet=True), tag("div", energy))
    tabs = tag(
        "div", _tab("map-1", "similarity of the bases", True), _tab("map-2", "energy kept", False), similarity, energy, class_="tabs"
    )
    return section("Layer by layer", paragraph(HOW_TO_READ, quiet=True), tabs)


def _tab(name: str, label: str, checked: bool) -> Markup:
    button = tag("input", type="radio", name="map", id=name, checked="" if checked else None)
    return join(button, tag("label", label, for_=name))


def left_out_section(plan: TransferPlan) -> Markup:
    """Layers without a place, by block, each with its reason."""
    found = words.left_out(plan.decisions)
    if not found:
        return section("What is left out", paragraph("Nothing: every module of the adapter has its place in the target."))
    where = {"adapter": "in the adapter", "target": "in the target"}
    rows = [(block_title(g.block), where[g.side], str(len(g.layers)), g.reason) for g in found]
    total = sum(len(g.layers) for g in found)
    listing = table(("block", "found", "layers", "reason"), rows, numeric=(2,))
    folded = listing if len(rows) <= SHOWN_ROWS else fold(f"all {len(rows)} blocks", listing)
    return section("What is left out", paragraph(f"{words.count(total, 'layer')} in {words.count(len(rows), 'block')}."), folded)


def unmatched_section(unmatched: Sequence[tuple[str, str]]) -> Markup:
    """Keys of the file that could not be used."""
    if not unmatched:
        return Markup("")
    listing = table(("key in the file", "why it was not used"), [(code(key), reason) for key, reason in unmatched])
    folded = listing if len(unmatched) <= SHOWN_ROWS else fold(f"all {len(unmatched)} keys", listing)
    return section("Keys that could not be placed", paragraph(f"{words.count(len(unmatched), 'key')} of the adapter file."), folded)


def all_layers(report: TransferReport) -> Markup:
    """A table of what was carried."""
    rows = [
        (
            code(str(d.target or d.source)),
            words.ACTIONS[d.action],
            words.number(d.score.similarity_left),
            words.number(d.score.similarity_right),
            words.number(d.score.cosine),
            words.share_to_text(r.energy_kept) if r else "–",
            str(r.rank) if r else "–",
        )
        for d, r in words.pairs(report)
        if d.action != "skip"
    ]
    head = ("layer", "action", "sim. left", "sim. right", "cosine", "energy", "rank")
    listing = table(head, rows, numeric=(2, 3, 4, 5, 6))
    return section("Every layer in numbers", fold(f"{words.count(len(rows), 'layer')}", listing))


def _settings(report: TransferReport) -> Markup:
    plan = report.plan
    origin = [
        ("adapter", plan.adapter_name),
        ("source base", plan.source_name or "not given"),
        ("target base", plan.target_name),
        ("written to", report.output or "nothing was written"),
        *report.extra.items(),
    ]
    return join(
        section("Where it comes from", definitions(origin)),
        section("Settings", definitions(words.setting_rows(plan.settings))),
    )
