"""``batch``: many adapters to many bases; a failure is a row of the table, and the rest go on."""

from __future__ import annotations

import math
import multiprocessing
import signal
from argparse import Namespace
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing.synchronize import Event
from pathlib import Path

import torch

from converter.console import Bars, rows, say, show, show_json
from converter.files import input_paths
from converter.process import settle
from converter.transfer import settings_from
from lorax import (
    BatchRow,
    BatchTask,
    Cancelled,
    FileError,
    LoraxError,
    Written,
    base_stem,
    batch_work,
    check_folder,
    check_names,
    failed_row,
    same_file,
)

FAILED = 1


def run(arguments: Namespace) -> int:
    """The command."""
    adapters = list_adapters(arguments.adapters, arguments.out)
    targets: list[str] = list(dict.fromkeys(arguments.targets))
    check_names(adapters, targets)
    check_folder(arguments.out, [*adapters, *input_paths(arguments.source, *targets)], adapters, targets)
    tasks = split(arguments, adapters, targets)
    found = list(_one_by_one(tasks) if arguments.jobs == 1 or len(tasks) == 1 else _side_by_side(tasks, arguments.jobs))
    order = {(adapter.stem, base_stem(target)): i for i, (adapter, target) in enumerate((a, t) for t in targets for a in adapters)}
    found.sort(key=lambda row: order.get((row.adapter, row.target), len(order)))
    if arguments.json:
        show_json(document(found))
    else:
        show(table(found))
    return FAILED if any(row.state in ("failed", "refused") for row in found) else 0


def list_adapters(paths: Sequence[Path], out: Path) -> list[Path]:
    """The files named, and the ``.safetensors`` files of the folders named, results of an earlier batch left out."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += [p for p in sorted(path.glob("*.safetensors")) if p.is_file() and not same_file(p.parent, out)]
        elif path.is_file():
            found.append(path)
        else:
            raise FileError(f"'{path}' does not exist")
    if not found:
        raise LoraxError("there is no adapter to carry: the folders given hold no .safetensors file")
    return list(dict.fromkeys(found))


def split(arguments: Namespace, adapters: Sequence[Path], targets: Sequence[str]) -> list[BatchTask]:
    """The work by target; the adapters of one target are spread over several tasks only where processes would be idle."""
    share = max(1, math.ceil(arguments.jobs / len(targets)))
    size = max(1, math.ceil(len(adapters) / share))
    settings = settings_from(arguments)
    threads = max(1, torch.get_num_threads() // min(arguments.jobs, len(targets) * share))
    return [
        BatchTask(
            source=arguments.source,
            target=target,
            adapters=tuple(adapters[i : i + size]),
            out=arguments.out,
            settings=settings,
            written=Written(arguments.out, arguments.format, arguments.dtype, arguments.force),
            resume=arguments.resume,
            reports=arguments.reports,
            threads=threads,
        )
        for target in targets
        for i in range(0, len(adapters), size)
    ]


def _one_by_one(tasks: Sequence[BatchTask]) -> Iterator[BatchRow]:
    threads = torch.get_num_threads()
    try:
        with Bars() as progress:
            for task in tasks:
                yield from batch_work(task, progress)
    finally:
        torch.set_num_threads(threads)


_stop: Event | None = None


def _begin(stop: Event) -> None:
    """In a worker: Ctrl-C is the parent's business, which sets `stop`; a layer later the worker gives up cleanly."""
    global _stop
    _stop = stop
    settle()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _poll(text: str, done: int, total: int) -> None:
    if _stop is not None and _stop.is_set():
        raise Cancelled("stopped")


def _work_in_process(task: BatchTask) -> list[BatchRow]:
    return list(batch_work(task, _poll))


def _side_by_side(tasks: Sequence[BatchTask], jobs: int) -> Iterator[BatchRow]:
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with ProcessPoolExecutor(min(jobs, len(tasks)), context, _begin, (stop,)) as pool, Bars() as progress:
        pending: dict[Future[list[BatchRow]], BatchTask] = {pool.submit(_work_in_process, task): task for task in tasks}
        try:
            while pending:
                progress("batch", len(tasks) - len(pending), len(tasks))
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    yield from _rows_of(future, pending.pop(future))
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _rows_of(future: Future[list[BatchRow]], task: BatchTask) -> list[BatchRow]:
    try:
        found = future.result()
    except Exception as error:
        found = [failed_row(task, adapter, f"the process died: {error}") for adapter in task.adapters]
    for row in found:
        say(f"{row.adapter} → {row.target}: {row.state}{f' ({row.message})' if row.message else ''}")
    return found


def document(found: Sequence[BatchRow]) -> dict[str, object]:
    """The outcome for ``--json``."""
    states = ("done", "kept", "refused", "failed")
    return {**{state: sum(r.state == state for r in found) for state in states}, "rows": [r.as_json() for r in found]}


def table(found: Sequence[BatchRow]) -> str:
    """The outcome for a terminal."""
    head = ("adapter", "target", "result", "modules", "energy kept", "time")
    body = [(r.adapter, r.target, r.state, r.modules, r.energy, f"{r.seconds:.1f} s" if r.seconds else "–") for r in found]
    messages = [f"{r.adapter} → {r.target}: {r.message}" for r in found if r.message]
    return "\n".join([rows(head, body), *(["", *messages] if messages else [])])
