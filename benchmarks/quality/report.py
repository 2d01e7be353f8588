"""``results.md`` and the plots, written from the rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.quality.adapters import KINDS, RATES, TITLES
from benchmarks.quality.evaluate import PAIRS
from benchmarks.quality.family import FULL
from benchmarks.quality.plots import recovered_plot
from benchmarks.quality.rows import FIRST, Key, Results, Row
from benchmarks.quality.tables import ORDER, Cell, Figure, Group, difference, predictors, table
from lorax import write_text

HELD_ASIDE = 2
"""The base seed that nothing was chosen on."""
DISTILLED = {FIRST: 60}
"""Steps of ``--method distill`` beside adapters of so many steps, where they were not those of now."""
WEIGHTS_ONLY = ("copy", "project", "align")
FAMILIES = {"sd": "SD1.5-shaped", "xl": "SDXL-shaped"}
MEMBERS = {
    "source": "source",
    "finetune": "fine-tune on another domain",
    "blocks": "blocks pruned, distilled",
    "width": "width pruned, distilled",
    "independent": "independent training",
}
FIGURES: Mapping[Figure, str] = {
    "recovered": "Recovered share of the loss gap",
    "style_accuracy": "Style accuracy of samples",
    "content": "Content accuracy of samples",
    "frechet": "Fréchet distance of samples",
    "effect_cosine": "Effect cosine",
}


def write_report(results: Results, folder: Path) -> None:
    """Tables in words and a plot for each family; tables alone for adapters that were trained for other numbers of steps."""
    for other in results.others():
        write_text(folder / f"results-{other.steps}-steps.md", "\n".join(_lines(other.rows(), other)) + "\n", overwrite=True)
    rows = results.rows()
    if not rows:
        return
    write_text(folder / "results.md", "\n".join(_lines(rows, results)) + "\n", overwrite=True)
    for family, title in FAMILIES.items():
        groups = {g: c for g, c in table(rows, "recovered").items() if g[0] == family and g[3] == "lora"}
        if groups:
            labels = {g: pair_title(g) for g in groups}
            write_text(folder / f"recovered-{family}.svg", recovered_plot(f"{title}, ordinary LoRA", groups, labels), overwrite=True)


def pair_title(group: Group) -> str:
    """``source → width pruned, distilled``."""
    return f"{MEMBERS[group[1]]} → {MEMBERS[group[2]]}"


def _lines(rows: Mapping[Key, Row], results: Results) -> Iterator[str]:
    yield "# Results"
    yield ""
    yield "Written by `python -m benchmarks.quality` from `rows.jsonl` and `pairs.jsonl`; what it means is in [quality.md](../quality.md)."
    seeds = sorted({row.seed for row in rows.values()})
    styles = sorted({row.style for row in rows.values()})
    yield f"Base seeds {', '.join(map(str, seeds))} ({HELD_ASIDE} held aside); styles {', '.join(styles)}; {len(rows)} rows."
    yield f"Steps: source {FULL.source}, fine-tune {FULL.finetune}, pruned {FULL.distil}, adapters {results.steps}"
    distilled = DISTILLED.get(results.steps, FULL.distill_adapter)
    yield f"(rates {', '.join(f'{kind} {rate:g}' for kind, rate in RATES.items())}), distill {distilled}."
    yield "Each figure is the mean ± sample standard deviation over styles and seeds; – was not run or is undefined, *refused* was refused."
    yield "*aim*: `target + (source with the adapter − source)`, what distillation learns from, asked of the three networks themselves."
    for figure, title in FIGURES.items():
        yield from ("", f"## {title}", "")
        yield from _table(rows, figure)
    yield from (
        "",
        "## Held aside",
        "",
        "Paired differences of recovered shares on the seed that nothing was chosen on, style by style.",
        "",
    )
    yield from _differences(rows)
    yield from ("", "## What foretells it", "")
    yield "Spearman's rank correlation with the recovered share of an ordinary LoRA, over all pairs and seeds (number of pairs)."
    yield ""
    yield from _predictors(rows, results)


def _table(rows: Mapping[Key, Row], figure: Figure) -> Iterator[str]:
    cells = table(rows, figure)
    columns = [c for c in ORDER if any(c in found for found in cells.values())]
    yield _row(["pair", "adapter", "n", *columns])
    yield _row(["---"] * (len(columns) + 3))
    for group in _ordered(cells):
        found = cells[group]
        count = max(c.count for c in found.values())
        shown = [_shown(rows, group, column, found.get(column), figure) for column in columns]
        yield _row([f"{FAMILIES[group[0]]}: {pair_title(group)}", TITLES[group[3]], str(count), *shown])


def _shown(rows: Mapping[Key, Row], group: Group, column: str, found: Cell | None, figure: Figure) -> str:
    if found is not None:
        return f"{found.mean:.0f} ± {found.sd:.0f}" if figure == "frechet" else str(found)
    mine = [r for r in rows.values() if (r.family, r.source, r.target, r.kind) == group and r.column == column]
    return "*refused*" if column == "auto" and mine and all(r.verdict == "not transferable" and r.loss is None for r in mine) else "–"


def _differences(rows: Mapping[Key, Row]) -> Iterator[str]:
    seeds = [HELD_ASIDE]
    compared = (("auto", "copy"), *(("auto", method) for method in WEIGHTS_ONLY[1:]), ("project", "copy"), ("distill", "auto"))
    yield _row(["pair", "adapter", *(f"{a} − {b}" for a, b in compared)])
    yield _row(["---"] * (len(compared) + 2))
    for group in _ordered(table(rows, "recovered", seeds)):
        cells = [difference(rows, group, a, b, seeds) for a, b in compared]
        if any(cells):
            shown = ["–" if c is None else f"{c.mean:+.2f} ± {c.sd:.2f}" for c in cells]
            yield _row([f"{FAMILIES[group[0]]}: {pair_title(group)}", TITLES[group[3]], *shown])


def _predictors(rows: Mapping[Key, Row], results: Results) -> Iterator[str]:
    columns = ("copy", "align", "auto")
    found = {column: predictors(rows, results.pairs(), column) for column in columns}
    names = list(dict.fromkeys(name for correlations in found.values() for name in correlations))
    yield _row(["known beforehand", *columns])
    yield _row(["---"] * (len(columns) + 1))
    for name in names:
        yield _row([name, *(f"{c[0]:+.2f} ({c[1]})" if (c := found[column].get(name)) else "–" for column in columns)])


def _ordered(groups: Mapping[Group, object]) -> list[Group]:
    pairs = {pair: i for i, pair in enumerate(PAIRS)}
    return sorted(groups, key=lambda g: (KINDS.index(g[3]), pairs[g[:3]]))  # pyright: ignore[reportArgumentType]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
