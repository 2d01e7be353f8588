"""From rows to figures and words: recovered shares with their spread, paired differences, rank correlations."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.quality.rows import Key, Relatedness, Row

ORDER = ("none", "by name", "copy", "copy × 0.5", "copy × 0.75", "index map", "project", "align", "auto", "aim", "distill", "trained")
SMALLEST_GAIN = 0.15
"""Share of the loss that the adapter trained on the target has to take away for a recovered share to mean something."""

Figure = Literal["recovered", "style_accuracy", "content", "frechet", "effect_cosine"]


@dataclass(frozen=True)
class Cell:
    """Mean and sample standard deviation over styles and seeds."""

    mean: float
    sd: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.sd:.2f}" if self.count > 1 else f"{self.mean:.2f}"


Group = tuple[str, str, str, str]
"""(family, source, target, kind)"""


def recovered(rows: Mapping[Key, Row], row: Row) -> float | None:
    """``(none − x) / (none − trained)`` of held-out losses; the same kind of adapter trained on the target is 1."""
    if row.loss is None:
        return None
    base = (row.family, row.seed, row.source, row.target, row.style)
    none, trained = rows.get((*base, "", "none")), rows.get((*base, row.kind, "trained"))
    if none is None or none.loss is None or trained is None or trained.loss is None or row.column == "none":
        return None
    gain = none.loss - trained.loss
    return (none.loss - row.loss) / gain if gain > SMALLEST_GAIN * none.loss else None


def value(rows: Mapping[Key, Row], row: Row, figure: Figure) -> float | None:
    """A figure of a row."""
    return recovered(rows, row) if figure == "recovered" else getattr(row, figure)


def cell(values: Iterable[float | None]) -> Cell | None:
    """Summary of the values that are there."""
    known = [v for v in values if v is not None]
    if not known:
        return None
    mean = sum(known) / len(known)
    sd = math.sqrt(sum((v - mean) ** 2 for v in known) / (len(known) - 1)) if len(known) > 1 else 0.0
    return Cell(mean, sd, len(known))


def table(rows: Mapping[Key, Row], figure: Figure, seeds: Sequence[int] | None = None) -> dict[Group, dict[str, Cell]]:
    """Figure by group and column; `none` belongs to every kind."""
    found: dict[Group, dict[str, list[float | None]]] = defaultdict(lambda: defaultdict(list))
    kinds: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for row in rows.values():
        if row.kind:
            kinds[row.family, row.source, row.target].add(row.kind)
    for row in rows.values():
        if seeds is not None and row.seed not in seeds:
            continue
        for kind in [row.kind] if row.kind else sorted(kinds[row.family, row.source, row.target]):
            found[row.family, row.source, row.target, kind][row.column].append(value(rows, row, figure))
    summarised = {g: {c: s for c, values in columns.items() if (s := cell(values))} for g, columns in found.items()}
    return {group: columns for group, columns in summarised.items() if columns}


def difference(rows: Mapping[Key, Row], group: Group, better: str, worse: str, seeds: Sequence[int] | None = None) -> Cell | None:
    """Paired difference of recovered shares, style by style and seed by seed."""
    values: list[float | None] = []
    for key, row in rows.items():
        if (row.family, row.source, row.target, row.kind) == group and row.column == better and (seeds is None or row.seed in seeds):
            other = rows.get((*key[:-1], worse))
            a, b = recovered(rows, row), recovered(rows, other) if other else None
            values.append(None if a is None or b is None else a - b)
    return cell(values)


def rank_correlation(pairs: Iterable[tuple[float, float]]) -> tuple[float, int] | None:
    """Spearman's ρ with average ranks, and the number of points; None for fewer than four."""
    points = list(pairs)
    if len(points) < 4:
        return None
    a, b = (_ranks([p[i] for p in points]) for i in (0, 1))
    mean = (len(points) - 1) / 2
    top = sum((x - mean) * (y - mean) for x, y in zip(a, b, strict=True))
    norm = math.sqrt(sum((x - mean) ** 2 for x in a) * sum((y - mean) ** 2 for y in b))
    return (top / norm if norm else 0.0), len(points)


def predictors(
    rows: Mapping[Key, Row], pairs: Mapping[tuple[str, int, str, str], Relatedness], column: str, kind: str = "lora"
) -> dict[str, tuple[float, int]]:
    """How well what is known beforehand orders the pairs by the share that `column` recovered (mean over styles)."""
    shares = {key: s for key in pairs if (s := cell(_of(rows, key, column, kind, "recovered")))}
    measures = {
        "ρ": lambda p: p.rho,
        "similarity Φ̂": lambda p: p.similarity,
        "−ATC, source free": lambda p: None if p.atc is None else -p.atc,
        "−ATC, balanced": lambda p: None if p.atc_balanced is None else -p.atc_balanced,
        "ρ̂ after alignment": lambda p: p.aligned_rho,
    }
    found: dict[str, tuple[float, int]] = {}
    for name, measure in measures.items():
        points = [(float(m), shares[key].mean) for key, pair in pairs.items() if key in shares and (m := measure(pair)) is not None]
        if (correlation := rank_correlation(points)) is not None:
            found[name] = correlation
    cosines = {key: cell(_of(rows, key, column, kind, "effect_cosine")) for key in shares}
    points = [(c.mean, shares[key].mean) for key, c in cosines.items() if c is not None]
    if (correlation := rank_correlation(points)) is not None:
        found["effect cosine"] = correlation
    return found


def _of(rows: Mapping[Key, Row], pair: tuple[str, int, str, str], column: str, kind: str, figure: Figure) -> list[float | None]:
    return [
        value(rows, row, figure)
        for row in rows.values()
        if (row.family, row.seed, row.source, row.target) == pair and row.column == column and row.kind == kind
    ]


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(values)
    return [order.index(v) + (order.count(v) - 1) / 2 for v in values]
