"""Many adapters to many checkpoints: the converter's batch, one row after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from lorax.actions import Row, Task, Written, base_stem, check_folder, check_names, work
from lorax.errors import LoraxError
from lorax.transfer.types import Progress
from lorax.ui.choices import Options
from lorax.ui.transferring import Transfers, counted
from lorax.ui.wording import in_words_of_a_page


def carry_all(
    transfers: Transfers, adapters: Sequence[str], source: str, targets: Sequence[str], options: Options, resume: bool, progress: Progress
) -> Iterator[list[Row]]:
    """All rows so far, after each. What was done before a stop stays; with `resume` the next run keeps it."""
    if not adapters or not targets:
        raise LoraxError("choose at least one adapter and one target checkpoint")
    rows: list[Row] = []
    paths: dict[str, list[Path]] = {}
    specs = [str(transfers.place.base(target).spec) for target in targets]
    for name in adapters:
        spec, why = transfers.spec_of(name, source, progress)
        path = transfers.place.adapter(name).path
        if spec is None:
            rows += [Row(path.stem, base_stem(target), "failed", why or "a batch needs the source of its adapters") for target in specs]
        else:
            paths.setdefault(str(spec), []).append(path)
    yield list(rows)
    tasks = [task(source, target, found, options, resume, transfers) for source, found in paths.items() for target in specs]
    check(tasks)
    total, earlier = sum(len(task.adapters) for task in tasks), len(rows)
    threads = torch.get_num_threads()
    try:
        for each in tasks:

            def tell(text: str, done: int, steps: int, target: str = base_stem(each.target)) -> None:
                counted(progress, min(total - 1, len(rows) - earlier), total)(f"{target}: {text}", done, steps)

            for row in work(each, tell):
                rows.append(replace(row, message=in_words_of_a_page(row.message)))
                yield list(rows)
    finally:
        torch.set_num_threads(threads)
        transfers.place.list_again()


def task(source: str, target: str, adapters: Sequence[Path], options: Options, resume: bool, transfers: Transfers) -> Task:
    """The converter's piece of work for one pair of bases."""
    out = transfers.place.folder(options.folder)
    return Task(
        source=source,
        target=target,
        adapters=tuple(adapters),
        out=out,
        settings=options.settings,
        written=Written(out, options.format, options.dtype, options.overwrite),
        resume=resume,
        reports=False,
        threads=torch.get_num_threads(),
    )


def check(tasks: Sequence[Task]) -> None:
    """Refuse names that would want the same file, and results that would be inputs."""
    if not tasks:
        return
    adapters = list(dict.fromkeys(path for each in tasks for path in each.adapters))
    targets = list(dict.fromkeys(each.target for each in tasks))
    check_names(adapters, targets)
    check_folder(tasks[0].out, [*adapters, *map(Path, targets), *(Path(each.source) for each in tasks)], adapters, targets)
