"""The sample grids of the documentation: what an adapter does at home, on a target by each way, and trained there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from benchmarks.quality.columns import COLUMNS, Pair, own_deltas
from benchmarks.quality.evaluate import Evaluation
from benchmarks.quality.family import Member, Workshop
from benchmarks.quality.grids import draw_grid, samples
from benchmarks.quality.pictures import TUNING_STYLES
from lorax import open_checkpoint

CAPTIONS = (
    "red circle northwest",
    "green square southeast",
    "blue cross northeast",
    "yellow triangle southwest",
    "magenta circle southeast",
    "cyan square northwest",
)
SHOWN = (("sd", 0, "blocks", "stripes"), ("sd", 0, "width", "hue"), ("sd", 0, "finetune", "stripes"), ("xl", 0, "blocks", "stripes"))
"""(family, seed, target, style)"""


def write_grids(evaluation: Evaluation, folder: Path) -> None:
    """One PNG for each pair that there are models of, and the one of training."""
    workshop = evaluation.workshop
    for family, seed, name, style in SHOWN:
        source, target = Member(family, seed, "source"), Member(family, seed, name)
        if workshop.has(source) and workshop.has(target):
            draw_grid(folder / f"grid-{family}-{name}.png", [*_columns(evaluation, source, target, style)], CAPTIONS)
    draw_grid(folder.parent / "training-styles.png", [*_trained(workshop, Member("sd", 0, "source"))], CAPTIONS)


def _columns(evaluation: Evaluation, source: Member, target: Member, style: str) -> Iterator[tuple[str, Tensor]]:
    workshop = evaluation.workshop
    path = workshop.adapter(source, "lora", style)
    pair = Pair(workshop.model(source), workshop.model(target))
    try:
        yield "source", samples(workshop, source, None, CAPTIONS)
        yield f"+ LoRA\n({style})", samples(workshop, source, own_deltas(path, pair.source), CAPTIONS)
        yield "target", samples(workshop, target, None, CAPTIONS)
        for name in ("by name", "copy", "align", "auto"):
            made = COLUMNS[name](pair, path)
            if made.deltas is not None:
                title = f"auto:\n{made.note}" if name == "auto" else name
                yield title, samples(workshop, target, made.deltas, CAPTIONS)
        distilled = evaluation.distilled((source, target), "lora", style, path)
        if distilled.deltas is not None:
            yield "distilled", samples(workshop, target, distilled.deltas, CAPTIONS)
        yield "trained\nthere", samples(workshop, target, own_deltas(workshop.adapter(target, "lora", style), pair.target), CAPTIONS)
    finally:
        pair.close()


def _trained(workshop: Workshop, member: Member) -> Iterator[tuple[str, Tensor]]:
    """The base, and native LoRA-X adapters trained on it."""
    yield "base", samples(workshop, member, None, CAPTIONS)
    with open_checkpoint(workshop.model(member)) as base:
        for style in TUNING_STYLES:
            deltas = own_deltas(workshop.adapter(member, "lorax", style), base)
            yield f"LoRA-X\n{style}", samples(workshop, member, deltas, CAPTIONS)
