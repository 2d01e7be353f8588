"""`Retargeter`: a wish and a base in, a file for the host's loader out; the same work is never done twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lorax.adapter import Adapter
from lorax.bases import default_bases
from lorax.checkpoint import BaseHashes
from lorax.device import free_unused, is_out_of_memory, resolve_device
from lorax.digest import autov1_hash
from lorax.errors import FileError, LoraxError, one_line
from lorax.fileindex import FileIndex
from lorax.formats import output_metadata, read_adapter, write_adapter
from lorax.hosts.base import Carried, Forecast, KnownBase, RetargetOptions, Wish
from lorax.library import Entry, Library
from lorax.render import to_json
from lorax.retarget.forecast import Forecasts, forecast_of, refusal
from lorax.retarget.keys import job_digest, quick_key
from lorax.retarget.source import Found, find_source
from lorax.retarget.store import Store, told
from lorax.retarget.turns import Turns
from lorax.retarget.warming import PAUSE, Warmer
from lorax.retarget.work import Done, Job, Relations, losses, planned, require_source, summarise, work
from lorax.transfer.types import Progress, TransferSettings, no_progress

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class Folders:
    """Where adapters and results lie."""

    adapters: tuple[Path, ...]
    """The first folder first, where names are the same."""
    cache: Path
    limit: int = 8 << 30
    """Bytes of transferred adapters to keep."""


class Retargeter:
    """Carries adapters to bases (`lorax.hosts.base.Service`). Calls may come from any thread."""

    def __init__(self, folders: Folders, bases: Callable[[], Sequence[KnownBase]]) -> None:
        """bases: the checkpoints among which a source is looked for."""
        self._library = Library(folders.adapters)
        self._known_bases = bases
        self._index = FileIndex(folders.cache / "files.json")
        self._store = Store(folders.cache / "transferred", folders.limit)
        self._spans = default_bases(folders.cache)
        self._relations = Relations(folder=folders.cache / "relations")
        self._remembered: dict[Hashable, Carried] = {}
        self._turns = Turns()
        self._warmer = Warmer(lambda wish, base, options, progress: self.carry(wish, base, options, progress, patient=True))
        self._forecasts = Forecasts(folders.cache / "forecasts.json", self._quick, self._foresee)
        self._idle: Callable[[], bool] = lambda: True

    def entries(self) -> Sequence[Entry]:
        if not self._library.entries():
            self._library.refresh()
        return self._library.entries()

    def find(self, name: str) -> Entry:
        """The adapter of this name; UnknownFormat with the nearest one."""
        return self._library.find(name)

    def refresh(self) -> None:
        """Look at the folders again."""
        self._library.refresh()

    def name_of(self, known_by: str) -> str | None:
        """The name of the adapter with this hash (12 digits, as in `Carried`), None where it is not here."""
        for entry in self.entries():
            if known_by in (entry.shorthash, (self._index.known(entry.path) or "")[:12]):
                return entry.name
        return None

    def warm(self, wishes: Sequence[Wish], base: KnownBase, options: RetargetOptions) -> None:
        """`carry` in the background; a later call replaces an earlier one."""
        self._warmer.want([(wish, base, options) for wish in wishes if not wish.silent])

    def forecasts(self, names: Sequence[str], base: KnownBase, options: RetargetOptions) -> dict[str, Forecast | None]:
        """What is known already of these adapters, without any work; None: not yet."""
        bases = self._known_bases()
        return {name: self._forecasts.known(lambda n=name: self._quick(Wish(n), base, options, bases)) for name in names}

    def foresee(self, names: Sequence[str], base: KnownBase, options: RetargetOptions, idle: Callable[[], bool]) -> None:
        """Find the forecasts of these adapters in the background, while `idle`; a later call replaces an earlier one."""
        self._idle = idle
        self._forecasts.want([(Wish(name), base, options) for name, known in self.forecasts(names, base, options).items() if known is None])

    def close(self) -> None:
        """Stop the background work."""
        self._warmer.want([])
        self._forecasts.want([])

    @property
    def warming(self) -> bool:
        """The background worker has something to do."""
        return self._warmer.busy

    def carry(
        self, wish: Wish, base: KnownBase, options: RetargetOptions, progress: Progress = no_progress, *, patient: bool = False
    ) -> Carried:
        """The wish, made for `base`. patient: background work, which gives way to a picture that waits for another adapter.

        Raises LoraxError with one line: UnknownFormat for an unknown name, MalformedFile, NotTransferable, SourceNeeded,
        Cancelled…
        """
        return self._carry(self._library.find(wish.name).path, wish, base, options, progress, patient)

    def carry_file(self, path: Path, base: KnownBase, options: RetargetOptions, progress: Progress = no_progress) -> Carried:
        """The same for a file that the host found itself."""
        return self._carry(path, Wish(path.stem), base, options, progress, False)

    def transfer(
        self,
        wish: Wish,
        base: KnownBase,
        options: RetargetOptions,
        output: Path,
        dtype: str = "fp16",
        overwrite: bool = False,
        progress: Progress = no_progress,
    ) -> dict[str, Any]:
        """Write the converter's file: the tensors that the host uses, in `dtype`, without what only the host needs."""
        with self._turns.taken((), False, progress):
            job = self._job(self._library.find(wish.name).path, wish, base, options, progress)
            done, _ = self._work(job, progress)
        modules, shapes = done.transferred.modules, done.transferred.shapes
        metadata = metadata_of(job, done, output.stem)
        write_adapter(output, modules, done.arch, shapes=shapes, dtype=DTYPES[dtype], metadata=metadata, overwrite=overwrite)
        self._library.refresh()
        return to_json(replace(done.transferred.report, output=output.name))

    def _carry(self, path: Path, wish: Wish, base: KnownBase, options: RetargetOptions, progress: Progress, patient: bool) -> Carried:
        quick = quick_key(path, wish, base, options, self._known_bases())
        found = self._remembered.get(quick)
        if found is None or not found.path.is_file():
            with self._turns.taken(quick, patient, progress):
                found = self._carry_once(path, wish, base, options, self._turns.giving_way(progress, quick) if patient else progress)
            self._remembered[quick] = found
        return replace(found, name=wish.name)

    def _carry_once(self, path: Path, wish: Wish, base: KnownBase, options: RetargetOptions, progress: Progress) -> Carried:
        job = self._job(path, wish, base, options, progress)
        digest = job_digest(job, self._index.sha256(path))
        if found := self._store.find(digest, wish.name):
            return found
        done, note = self._work(job, progress)
        report = done.transferred.report
        if job.source is None and not done.adapter.retargeted:
            note = f"{done.adapter.name} {job.source_reason}: used on {base.name} by name and shape, nothing could be checked"
        note = "; ".join(filter(None, (note, *losses(done))))
        known_by = done.adapter.metadata.get("sshs_model_hash", "")[:12] or self._index.sha256(path)[:12]
        told_there = told(known_by, summarise(job, report), report.plan.verdict, note)
        hosted, arch = done.hosted, replace(done.arch, kohya_unet="single_file")
        metadata = {**metadata_of(job, done, path.stem), **told_there}
        output = self._store.path(digest)
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise FileError(one_line(f"'{output.parent}' cannot be made: {e.strerror or e}; choose another cache folder")) from None
        write_adapter(
            output,
            hosted.modules,
            arch,
            shapes=hosted.shapes,
            offsets=hosted.offsets,
            dtype=torch.float32,
            metadata=metadata,
            overwrite=True,
        )
        self._store.trim(output)
        return Carried(wish.name, output, digest, known_by, summarise(job, report), report.plan.verdict, note)

    def _job(self, path: Path, wish: Wish, base: KnownBase, options: RetargetOptions, progress: Progress) -> Job:
        adapter = read_adapter(path)
        source = Found(None, "was made by a transfer") if adapter.retargeted else self._source(adapter, wish, options)
        if source.base is None and not adapter.retargeted and options.unknown_source == "refuse":
            require_source(adapter.name, source.reason)
        settings = TransferSettings(
            method=wish.method or options.method,
            k=wish.k or options.k,
            out_rank=options.out_rank,
            min_similarity=options.min_similarity,
            device=str(resolve_device(options.device)),
        )
        source_base = base if source.base is not None and source.base.path == base.path else source.base
        shas = [None if b is None else b.sha256 or self._index.sha256(b.path, progress) for b in (base, source_base)]
        beside = tuple(self._index.sha256(p, progress) for p in base.beside)
        return Job(path, base, source_base, settings, source.reason, str(shas[0]), shas[1], beside)

    def _source(self, adapter: Adapter, wish: Wish, options: RetargetOptions) -> Found:
        return find_source(adapter, wish, options, self._known_bases(), self._index)

    def _quick(self, wish: Wish, base: KnownBase, options: RetargetOptions, bases: Sequence[KnownBase] | None = None) -> Hashable:
        return quick_key(self._library.find(wish.name).path, wish, base, options, self._known_bases() if bases is None else bases)

    def _foresee(self, wish: Wish, base: KnownBase, options: RetargetOptions, progress: Progress) -> Forecast:
        """The verdict of the plan; waits while the host is busy, and gives way to a picture that waits for an adapter."""
        giving_way = self._turns.giving_way(progress, "forecast")

        def waiting(text: str, done: int, total: int) -> None:
            giving_way(text, done, total)
            while not self._idle():
                time.sleep(PAUSE)
                giving_way(text, done, total)

        path = self._library.find(wish.name).path
        with self._turns.taken((), True, progress):
            try:
                job = self._job(path, wish, base, options, waiting)
                digest = job_digest(job, self._index.sha256(path))
                return self._forecasts.by_content(digest, lambda: self._plan(job, waiting))
            except LoraxError as error:
                return refusal(type(error)(in_words_of_a_prompt(str(error))))

    def _plan(self, job: Job, progress: Progress) -> Forecast:
        with torch.no_grad(), planned(job, self._relations, progress) as made:
            return forecast_of(made.plan, job)

    def _work(self, job: Job, progress: Progress) -> tuple[Done, str]:
        """`work`, once more on the CPU where the GPU has no room; with a line that says so."""
        try:
            return self._work_on(job, progress), ""
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            free_unused(torch.device(job.settings.device))
            again = replace(job, settings=replace(job.settings, device="cpu"))
            return self._work_on(again, progress), f"{job.adapter.stem}: the GPU had no room, computed on the CPU"

    def _work_on(self, job: Job, progress: Progress) -> Done:
        """`work` in full precision, for a host may call from inside its autocast; with refusals in the words of a prompt."""
        try:
            with torch.no_grad(), torch.autocast(job.settings.device.partition(":")[0], enabled=False):
                return work(job, self._spans, self._relations, progress)
        except LoraxError as error:
            raise type(error)(in_words_of_a_prompt(str(error))) from error


def in_words_of_a_prompt(message: str) -> str:
    """A refusal without the command line's options, which a prompt does not have."""
    for option, words in (
        ("; --force writes it all the same, as an experiment", ""),
        (", or use --force", ""),
        ("--source", "source=<checkpoint>"),
    ):
        message = message.replace(option, words)
    return message


def metadata_of(job: Job, done: Done, stem: str) -> dict[str, str]:
    """The metadata of an output file, as the converter writes it."""
    report = done.transferred.report
    kept = report.energy_kept
    settings = {name: str(value) for name, value in asdict(job.settings).items() if value not in (None, (), False) and name != "device"}
    summary = {"method": report.plan.method, "verdict": report.plan.verdict, "energy_kept": "" if kept is None else f"{kept:.4f}"}
    return output_metadata(
        done.adapter,
        job.target.name,
        BaseHashes(job.target_sha256, autov1_hash(job.target.path)),
        done.arch,
        stem,
        {layer: factors.rank for layer, factors in done.transferred.modules.items()},
        settings,
        source_name=job.source.name if job.source else None,
        prediction_type=done.prediction_type,
        summary=summary,
    )
