"""The small size: one family, three targets, two styles, and the ranking that every change of the project has to keep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.quality.adapters import Kind
from benchmarks.quality.evaluate import Choice, Evaluation
from benchmarks.quality.family import CI, Say, Workshop
from benchmarks.quality.rows import Key, Results, Row
from benchmarks.quality.tables import Cell, Group, difference, recovered, table

SEED = 0
STYLES = ("hue", "stripes")
BLOCKS: Group = ("sd", "source", "blocks", "lora")
WIDTH: Group = ("sd", "source", "width", "lora")
NATIVE: Group = ("sd", "source", "blocks", "lorax")
Check = tuple[str, bool, str]
"""(what must hold, whether it does, the figures)"""


def check_ranking(folder: Path, say: Say) -> int:
    """Fill the small table and check it; 1 where the ranking is not kept."""
    results = Results(folder / "results", CI.adapter)
    evaluation = Evaluation(Workshop(folder, CI, say), results, say)
    for pairs, kinds, columns in _parts():
        evaluation.run(Choice(("sd",), (SEED,), kinds, STYLES, columns, pairs))
    rows = results.rows()
    checks = [*ranking(rows)]
    for row in rows.values():
        share = recovered(rows, row)
        print(f"{row.target:12} {row.style:8} {row.kind:6} {row.column:10} {'–' if share is None else f'{share:.2f}':>6}  {row.verdict}")
    for what, holds, figures in checks:
        print(f"{'ok    ' if holds else 'BROKEN'} {what}: {figures}")
    return 0 if all(holds for _, holds, _ in checks) else 1


def ranking(rows: Mapping[Key, Row]) -> Iterator[Check]:
    """What EVIDENCE on several kinds of models has in common, with margins far wider than its spread."""
    yield _at_least("the right block map is not worse than names", difference(rows, BLOCKS, "copy", "by name"), -0.02)
    yield _at_least("an ordinary LoRA loses by projection", difference(rows, BLOCKS, "copy", "project"), 0.1)
    yield _at_least("auto is not worse than copy", difference(rows, BLOCKS, "auto", "copy"), -0.05)
    native = difference(rows, NATIVE, "project", "copy")
    kept = native is not None and native.mean >= -0.08 - native.sd
    yield "a native adapter survives its projection", kept, _shown(native)
    yield _at_least("alignment beats the index map where the width differs", difference(rows, WIDTH, "align", "index map"), 0.0)
    refused = [row for row in rows.values() if row.target == "independent" and row.column == "auto"]
    told = all(row.loss is None and row.verdict == "not transferable" for row in refused)
    yield "an independent training is refused", bool(refused) and told, f"{len(refused)} adapters"
    related = [row for row in rows.values() if row.target != "independent" and row.column == "auto"]
    yield "no relative is refused", all(row.verdict != "not transferable" for row in related), f"{len(related)} adapters"
    trained = table(rows, "recovered")[BLOCKS]["copy"]
    yield "a copy by the right map carries something", trained.mean > 0.1, _shown(trained)


def _parts() -> Iterator[tuple[tuple[tuple[str, str, str], ...], tuple[Kind, ...], tuple[str, ...]]]:
    """(pairs, kinds, columns)"""
    columns = ("none", "by name", "copy", "project", "auto", "trained")
    yield (("sd", "source", "blocks"),), ("lora", "lorax"), columns
    yield (("sd", "source", "width"),), ("lora",), ("none", "index map", "align", "auto", "trained")
    yield (("sd", "source", "independent"),), ("lora",), ("auto",)


def _at_least(what: str, found: Cell | None, least: float) -> Check:
    return what, found is not None and found.mean >= least, f"{_shown(found)}, at least {least:+.2f} is expected"


def _shown(found: Cell | None) -> str:
    return "no figures" if found is None else f"{found.mean:+.2f} ± {found.sd:.2f}"
