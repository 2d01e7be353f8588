"""One share of a batch: adapters of one source to one target, in whatever process."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lorax.actions.files import base_stem, default_output
from lorax.actions.transfer import Written, cached_bases, carry_out, known_hashes, settings_record
from lorax.cache import default_folder
from lorax.checkpoint import Checkpoint, open_checkpoint
from lorax.digest import sha256_file
from lorax.errors import Cancelled, FileError, LoraxError, NotTransferable, WouldOverwrite
from lorax.formats import read_adapter
from lorax.layers import LayerId
from lorax.render import share_to_text, to_html
from lorax.safefile import open_tensors, write_text
from lorax.transfer.kept import related
from lorax.transfer.plan import plan_transfer
from lorax.transfer.relate import Relation
from lorax.transfer.types import Progress, TransferReport, TransferSettings


@dataclass(frozen=True)
class Task:
    """What one process does before it takes the next."""

    source: str
    target: str
    adapters: tuple[Path, ...]
    out: Path
    settings: TransferSettings
    written: Written
    """Format, dtype and whether to overwrite; the path is each adapter's own."""
    resume: bool
    reports: bool
    threads: int
    """Of torch, in this process."""


@dataclass(frozen=True)
class Row:
    """What became of one adapter on one target."""

    adapter: str
    target: str
    state: str
    """``done``, ``kept`` (an earlier result stands), ``refused`` or ``failed``."""
    message: str = ""
    output: str | None = None
    modules_in: int | None = None
    modules_out: int | None = None
    energy_kept: float | None = None
    verdict: str = ""
    seconds: float = 0.0

    @property
    def modules(self) -> str:
        return "–" if self.modules_in is None else f"{self.modules_out}/{self.modules_in}"

    @property
    def energy(self) -> str:
        return share_to_text(self.energy_kept)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def check_names(adapters: Iterable[Path], targets: Iterable[str]) -> None:
    """Two inputs of one name would want the same output."""
    seen: dict[str, str] = {}
    for name, path in [*((f"adapter {a.stem}", str(a)) for a in adapters), *((f"target {base_stem(t)}", t) for t in targets)]:
        if name in seen:
            raise LoraxError(f"'{seen[name]}' and '{path}' have the same name, so their results would too: rename one")
        seen[name] = path


def check_folder(out: Path, inputs: Iterable[Path], adapters: Iterable[Path], targets: Iterable[str]) -> None:
    """Make the folder of the results; no result may be an input."""
    if out.exists() and not out.is_dir():
        raise FileError(f"'{out}' is a file, expected a folder")
    outputs = [out / default_output(a, t).name for t in targets for a in adapters]
    known = {path.resolve() for path in inputs}
    for output in outputs:
        if output.resolve() in known:
            raise FileError(f"the result '{output}' would be an input: choose another folder with --out")
    out.mkdir(parents=True, exist_ok=True)


def failed(task: Task, adapter: Path, message: str, state: str = "failed") -> Row:
    """The row of an adapter that did not get there."""
    return Row(adapter.stem, base_stem(task.target), state, message)


def work(task: Task, progress: Progress) -> Iterator[Row]:
    """Rows of the task's adapters. Whatever goes wrong with one is its row; only a stop by the user goes through."""
    torch.set_num_threads(task.threads)
    with ExitStack() as stack:
        try:
            source = stack.enter_context(open_checkpoint(task.source))
            target = stack.enter_context(open_checkpoint(task.target))
        except LoraxError as error:
            yield from (failed(task, adapter, str(error)) for adapter in task.adapters)
            return
        yield from _Pair(task, source, target, progress).rows()


class _Pair:
    """Two open bases and what they have to do with each other, computed once for all adapters."""

    def __init__(self, task: Task, source: Checkpoint, target: Checkpoint, progress: Progress) -> None:
        self.task, self.source, self.target, self.progress = task, source, target, progress
        self.bases = cached_bases()
        self.relation: Relation | None = None

    def rows(self) -> Iterator[Row]:
        readable: dict[Path, frozenset[LayerId]] = {}
        for path in self.task.adapters:
            row = self._attempt(path, lambda path=path: self._ready(path, readable))
            if row is not None:
                yield row
        if readable and self.source.arch.family == self.target.arch.family:
            layers = {layer for layers in readable.values() for layer in layers if layer in self.source.layers}
            settings = self.task.settings
            folder = default_folder() / "relations"
            self.relation = related(self.source, self.target, sorted(layers), settings.device, self.progress, settings.method, folder)
        for path in readable:
            row = self._attempt(path, lambda path=path: self._transfer(path))
            if row is not None:
                yield row

    def _ready(self, path: Path, readable: dict[Path, frozenset[LayerId]]) -> Row | None:
        """None where the adapter is to be carried; then its layers are added to `readable`: a hundred adapters would not fit."""
        output = self._output(path)
        if output.exists() and self.task.resume and self._is_current(path, output):
            return Row(path.stem, base_stem(self.task.target), "kept", output=str(output))
        if output.exists() and not self.task.written.overwrite:
            why = "it was made from other inputs or settings; " if self.task.resume else ""
            raise WouldOverwrite(f"'{output}' exists: {why}overwrite it with --force")
        readable[path] = frozenset(read_adapter(path, self.source.arch).modules)
        return None

    def _transfer(self, path: Path) -> Row:
        adapter = read_adapter(path, self.source.arch)
        plan = plan_transfer(adapter, self.source, self.target, self.task.settings, self.relation, self.progress)
        written = replace(self.task.written, path=self._output(path))
        report = carry_out(plan, adapter, self.source, self.target, written, self.bases, self.progress)
        if self.task.reports:
            write_text(written.path.with_suffix(".html"), to_html(report), overwrite=self.task.written.overwrite)
        return self._done(path, report)

    def _done(self, path: Path, report: TransferReport) -> Row:
        return Row(
            adapter=path.stem,
            target=base_stem(self.task.target),
            state="done",
            output=report.output,
            modules_in=report.modules_in,
            modules_out=report.modules_out,
            energy_kept=report.energy_kept,
            verdict=report.plan.verdict,
            seconds=report.seconds,
        )

    def _attempt(self, path: Path, step: Any) -> Row | None:
        try:
            return step()
        except Cancelled:
            raise
        except NotTransferable as error:
            return failed(self.task, path, str(error), "refused")
        except LoraxError as error:
            return failed(self.task, path, str(error))
        except Exception as error:
            return failed(self.task, path, f"{type(error).__name__}: {error}")

    def _output(self, adapter: Path) -> Path:
        return self.task.out / default_output(adapter, self.task.target).name

    def _is_current(self, adapter: Path, output: Path) -> bool:
        """The result was made from this very adapter, source, target and settings."""
        try:
            file = open_tensors(output)
        except FileError:
            return False
        told: Mapping[str, str] = dict(file.metadata)
        file.close()
        hashes = known_hashes(self.target)
        expected = {
            "lorax.action": "transfer",
            "lorax.source_adapter_sha256": sha256_file(adapter),
            "lorax.source_base": self.source.name,
            "lorax.target_base": self.target.name,
            "lorax.target_base_sha256": hashes.sha256 if hashes else None,
            "lorax.settings": json.dumps(settings_record(self.task.settings, self.task.written), sort_keys=True),
        }
        if any(told.get(key) != value for key, value in expected.items()):
            return False
        return hashes is not None or output.stat().st_mtime >= newest(self.target.paths)


def newest(paths: tuple[Path, ...]) -> float:
    """When the youngest file of a base without a hash was written."""
    files = [f for path in paths for f in (path.rglob("*") if path.is_dir() else (path,)) if f.is_file()]
    return max((f.stat().st_mtime for f in files), default=float("inf"))
