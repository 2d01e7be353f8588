"""The table of a comparison."""

from __future__ import annotations

from typing import Any

from lorax.errors import one_line
from lorax.render.terminal import columns
from lorax.train.compare.run import Compared, Comparison
from lorax.train.distill.measure import in_words


def comparison_to_json(comparison: Comparison) -> dict[str, Any]:
    """One JSON object."""
    told = {name: value for name, value in vars(comparison).items() if name not in ("columns", "notes")}
    each = [{**vars(column), "in_words": in_words(column.cosine)} for column in comparison.columns]
    return {"command": "compare-pictures", **told, "columns": each, "notes": list(comparison.notes)}


def comparison_to_text(comparison: Comparison) -> str:
    """For a terminal, without a final newline."""
    lines = [
        ("adapter", comparison.adapter_name),
        ("from", comparison.source_name),
        ("to", comparison.target_name),
        *((column.method, _sentence(column)) for column in comparison.columns),
        *(("note", note) for note in comparison.notes),
        ("wrote", f"{comparison.output}: {comparison.rows} rows"),
    ]
    return columns([(name, one_line(text)) for name, text in lines])


def _sentence(column: Compared) -> str:
    parts = [column.words]
    if column.cosine is not None and column.strength is not None:
        parts.append(f"effect cosine {column.cosine:.2f} at {column.strength:.2f} of the strength: {in_words(column.cosine)}")
    if column.verdict:
        parts.append(f"by weights: {column.verdict}")
    return "; ".join(parts)
