"""Two bases compared, as JSON, HTML, Markdown and terminal text."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from lorax.layers import LayerId
from lorax.render import words
from lorax.render.data import atc_fields, block_rows, finite, score_fields
from lorax.render.figures import HOW_TO_READ, block_map_section, map_figure
from lorax.render.grid import block_of
from lorax.render.heatmap import Cell
from lorax.render.markdown import table as markdown_table
from lorax.render.markdown import text
from lorax.render.markup import Markup, join, tag
from lorax.render.page import code, definitions, fold, page, paragraph, section, table, tile, tiles, verdict_card
from lorax.render.terminal import block_map_lines, columns
from lorax.transfer.compare import SimilarityReport
from lorax.transfer.types import LayerScore
from lorax.transfer.verdict import model_cosine


def similarity_to_json(report: SimilarityReport) -> dict[str, Any]:
    """The comparison as plain values."""
    return {
        "source": report.source_name,
        "target": report.target_name,
        "family": report.family,
        "k_sim": report.k_sim,
        "relation": relation(report)[0],
        "verdict": report.judgement.verdict,
        "verdict_reason": report.judgement.reason,
        "aligned": report.alignment is not None,
        "cosine": finite(model_cosine(report.scores.layers)),
        **atc_fields(report.scores.atc),
        "layers": [{"source": str(s), "target": str(t), **score_fields(score)} for s, t, score in _rows(report)],
        "blocks": block_rows(report.matching.units),
        "unplaced": [{"layer": str(layer), "reason": reason} for layer, reason in report.matching.unplaced.items()],
    }


def similarity_to_text(report: SimilarityReport) -> str:
    """The comparison for a terminal: the verdict, the numbers, and the worst layers."""
    lines = [("source", report.source_name), ("target", report.target_name), ("relation", " ".join(relation(report)[::2]))]
    lines += [(name, value) for name, value, _ in _numbers(report)]
    lines += block_map_lines(report.matching.units, _lost(report))
    for source, target, score in _worst(report)[:5]:
        origin = "" if source == target else f" ← {source}"
        lines.append(("worst", f"{words.number(score.similarity)}  {target}{origin}"))
    if report.matching.unplaced:
        lines.append(("unplaced", f"{words.count(len(report.matching.unplaced), 'source layer')} without a counterpart"))
    return columns(lines)


def similarity_to_markdown(report: SimilarityReport) -> str:
    """The comparison as Markdown."""
    title, _, sentence = relation(report)
    rows = [
        (str(t), words.number(s.similarity_left), words.number(s.similarity_right), words.number(s.cosine)) for _, t, s in _rows(report)
    ]
    parts = [
        f"# {text(report.source_name)} and {text(report.target_name)}",
        f"**{title}** {sentence}",
        markdown_table(("", ""), [(name, value) for name, value, _ in _numbers(report)]),
        markdown_table(("layer", "left", "right", "cosine"), rows),
    ]
    return "\n\n".join(parts) + "\n"


def similarity_to_html(report: SimilarityReport) -> str:
    """The comparison as one self-contained page."""
    facts = [
        ("family", report.family),
        ("rank of the comparison k_sim", f"at most {report.k_sim}, and a quarter of a layer's shorter side"),
    ]
    return page(
        f"{report.source_name} and {report.target_name}",
        tag(
            "header",
            tag("p", "Two bases compared", class_="eyebrow"),
            tag("h1", report.source_name, tag("span", " and ", class_="to"), report.target_name),
        ),
        similarity_body(report),
        section("Settings", definitions(facts)),
        tag("footer", "This page is one file: it runs no script and needs no network."),
    )


def similarity_body(report: SimilarityReport) -> Markup:
    """The comparison itself, for a page that has the style sheet: verdict, numbers, heat map, block map, every layer."""
    title, tone, sentence = relation(report)
    scored = [Cell(t, _shown(s), _tip(source, t, s)) for source, t, s in _rows(report)]
    figure = map_figure(scored, "map", "Similarity above chance")
    return join(
        verdict_card(title, tone, sentence),
        tiles(*(tile(value, name, meaning) for name, value, meaning in _numbers(report))),
        tag(
            "div",
            section("Layer by layer", paragraph(HOW_TO_READ, quiet=True), figure) if scored else "",
            block_map_section(report.matching.units, _lost(report)),
            class_="side",
        ),
        _layer_table(report),
    )


def relation(report: SimilarityReport) -> tuple[str, str, str]:
    """(headline, tone, sentences) on how the two bases are related, by the verdict on a transfer between them."""
    title, tone, meaning = words.RELATIONS[report.judgement.verdict]
    return title, tone, f"{meaning} {words.sentence(report.judgement.reason)}"


_Row = tuple[LayerId, LayerId, LayerScore]


def _rows(report: SimilarityReport) -> list[_Row]:
    found = report.scores.layers
    return [(m.source, m.target, found[m.target]) for m in report.matching.layers if m.target in found]


def _shown(score: LayerScore) -> float | None:
    return 1.0 if score.same_weights else score.similarity


def _worst(report: SimilarityReport) -> list[_Row]:
    measured = [(score.similarity, (source, target, score)) for source, target, score in _rows(report)]
    ranked = sorted(((s, row) for s, row in measured if s is not None), key=lambda pair: pair[0])
    return [row for _, row in ranked]


def _lost(report: SimilarityReport) -> Sequence[str]:
    units = report.matching.units
    taken, mapped = {u.source for u in units}, {u.target.partition(".")[0] for u in units}
    blocks = dict.fromkeys(block_of(layer) for layer in report.matching.unplaced)
    return [b for b in blocks if b not in taken and b.partition(".")[0] in mapped]


def _numbers(report: SimilarityReport) -> list[tuple[str, str, str]]:
    scores = list(report.scores.layers.values())
    found = [("layers", str(len(scores)), "Layers of the target that have a counterpart of their shape in the source.")]
    for side in ("left", "right"):
        values = [v for s in scores if (v := s.similarity_left if side == "left" else s.similarity_right) is not None]
        what = "outputs" if side == "left" else "inputs"
        if values:
            meaning = f"Median, on the side of the {what}. {words.EXPLAIN_SIMILARITY} The worst layer has {words.number(min(values))}."
            found.append((f"similarity {side}", words.number(median(values)), meaning))
    rho = model_cosine(report.scores.layers)
    if rho is not None:
        found.append(("weight cosine", words.number(rho), words.EXPLAIN_COSINE))
    atc = report.scores.atc
    if atc is not None:
        balanced = f" Balanced form: {words.number(atc.balanced_left)} / {words.number(atc.balanced_right)}."
        found.append(("cost (ATC)", f"{words.number(atc.left)} / {words.number(atc.right)}", words.EXPLAIN_ATC + balanced))
    return found


def _tip(source: LayerId, target: LayerId, score: LayerScore) -> str:
    parts = [str(target)] if source == target else [str(target), f"against {source}"]
    if score.same_weights:
        parts.append("same weights")
    parts.append(f"similarity {words.number(score.similarity_left)} left, {words.number(score.similarity_right)} right")
    parts.append(f"cosine {words.number(score.cosine)}")
    return "\n".join(parts)


def _layer_table(report: SimilarityReport) -> Markup:
    rows = [
        (
            code(str(t)),
            words.number(s.similarity_left),
            words.number(s.similarity_right),
            words.number(s.chance_left),
            words.number(s.chance_right),
            words.number(s.cosine),
        )
        for _, t, s in _rows(report)
    ]
    listing = table(("layer", "left", "right", "chance left", "chance right", "cosine"), rows, numeric=(1, 2, 3, 4, 5))
    return section("Every layer in numbers", fold(words.count(len(rows), "layer"), listing))
