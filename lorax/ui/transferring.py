"""What the transfer panels do: preview, transfer and batch, by the functions that the converter uses."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from lorax.actions import Written, cached_bases, carry_out, check_output, default_output, find_source
from lorax.adapter import Adapter
from lorax.cache import default_folder
from lorax.checkpoint import Checkpoint, open_checkpoint
from lorax.errors import Cancelled, LoraxError
from lorax.fileindex import FileIndex, stamp
from lorax.formats import read_adapter
from lorax.hosts.base import Wish
from lorax.library import Entry
from lorax.render.views import error_view, told_view, transfer_view
from lorax.retarget.source import find_source as find_known
from lorax.retarget.work import Relations
from lorax.transfer.plan import plan_transfer
from lorax.transfer.run import run_plan
from lorax.transfer.types import Progress, TransferPlan, TransferReport, TransferSettings
from lorax.ui.choices import AUTO, UNKNOWN, Options
from lorax.ui.jobs import line_of
from lorax.ui.wording import in_words_of_a_page
from lorax.ui.workplace import Workplace

PATIENCE = 20.0
"""Seconds that a preview spends on the energy that a transfer would keep."""


@dataclass
class Transfers:
    """The panels' transfers in one workplace; what two bases have to do with each other is found once."""

    place: Workplace
    _relations: Relations = field(default_factory=Relations)

    def source_of(self, adapter: str, progress: Progress) -> tuple[str | None, str]:
        """(name of the base that an adapter was made for, how that is known); None where it is not here, and why."""
        entry = self.place.adapter(adapter)
        read = read_adapter(entry.path)
        index = FileIndex(default_folder() / "files.json")
        known = {base.path: name for name, base in self.place.bases().items()}
        found = find_known(read, Wish(entry.name), self.place.host.options(), self.place.host.bases(), index)
        if found.base is not None:
            return known.get(found.base.path), found.reason
        try:
            match = find_source(read, list(self.place.checkpoints()), progress)
        except Cancelled:
            raise
        except LoraxError as error:
            return None, in_words_of_a_page(str(error))
        how = "a file of its name is here" if match.by == "name" else "its hash is in the adapter's file"
        return known.get(match.path), how

    def preview(self, adapter: str, source: str, targets: Sequence[str], options: Options, progress: Progress) -> Iterator[str]:
        """A view of what a transfer to each target would do; once without the energy, once with it."""
        if not adapter or not targets:
            yield ""
            return
        spec, how = self.spec_of(adapter, source, progress)
        if spec is None and how:
            how += " Without it only names and shapes can be checked."
        shown: list[str] = []
        for target in targets:
            view = ""
            try:
                for view in self._previewed(self.place.adapter(adapter), spec, target, options.settings, how, progress):
                    yield "".join([*shown, view])
                shown.append(view)
            except Cancelled:
                raise
            except Exception as error:
                shown.append(error_view(f"{target}: {line_of(error)}"))
                yield "".join(shown)

    def transfer(
        self, adapter: str, source: str, targets: Sequence[str], options: Options, progress: Progress
    ) -> Iterator[tuple[str, list[Path]]]:
        """(view, files) after each target; what fails is shown and the rest go on."""
        entry = self.place.adapter(adapter)
        if not targets:
            raise LoraxError("choose at least one target checkpoint")
        spec, how = self.spec_of(adapter, source, progress)
        shown: list[str] = []
        files: list[Path] = []
        for i, target in enumerate(targets):
            try:
                report = self._transferred(entry, spec, target, options, counted(progress, i, len(targets)))
                files += [Path(report.output)] if report.output else []
                shown.append(transfer_view(report, [how] if how else []))
            except Cancelled as error:
                shown.append(told_view(f"{target}: {error}"))
                yield "".join(shown), files
                break
            except Exception as error:
                shown.append(error_view(f"{target}: {line_of(error)}"))
            yield "".join(shown), files
        self.place.list_again()

    def spec_of(self, adapter: str, source: str, progress: Progress) -> tuple[str | Path | None, str]:
        """(what `open_checkpoint` takes, or None; a sentence on how it was found, or why it was not)"""
        if source == UNKNOWN:
            return None, ""
        if source != AUTO:
            return self.place.base(source).spec, ""
        name, how = self.source_of(adapter, progress)
        if name is None:
            return None, f"Its base was not found: {how}."
        return self.place.base(name).spec, f"Source found: {name} ({how})."

    def _planned(self, opened: Opened, settings: TransferSettings, progress: Progress) -> TransferPlan:
        adapter, source, target = opened.adapter, opened.source, opened.target
        if source is None or not adapter.family == source.arch.family == target.arch.family:
            return plan_transfer(adapter, source, target, settings, progress=progress)
        key = tuple(stamp(path) for path in (*source.paths, *target.paths) if path.is_file())
        relation = self._relations.between(key, source, target, adapter, settings, progress)
        return plan_transfer(adapter, source, target, settings, relation, progress)

    def _previewed(
        self, entry: Entry, spec: str | Path | None, target: str, settings: TransferSettings, how: str, progress: Progress
    ) -> Iterator[str]:
        with opened(entry, spec, self.place.base(target).spec) as files:
            plan = self._planned(files, settings, progress)
            report = TransferReport(plan, (), files.adapter.unmatched, 0.0)
            yield transfer_view(report, [how])
            if plan.verdict == "not transferable" and not settings.force:
                return
            try:
                report = run_plan(plan, files.adapter, files.source, files.target, cached_bases(), impatient(progress)).report
            except OutOfPatience:
                return
            yield transfer_view(report, [how])

    def _transferred(self, entry: Entry, spec: str | Path | None, target: str, options: Options, progress: Progress) -> TransferReport:
        base, start = self.place.base(target), time.perf_counter()
        output = self.place.folder(options.folder) / default_output(entry.path, str(base.path)).name
        inputs = [entry.path, base.path, *base.beside]
        check_output(output, inputs, options.overwrite)
        with opened(entry, spec, base.spec) as files:
            check_output(output, files.source.paths if files.source else (), options.overwrite)
            plan = self._planned(files, options.settings, progress)
            written = Written(output, options.format, options.dtype, options.overwrite)
            report = carry_out(plan, files.adapter, files.source, files.target, written, cached_bases(), progress)
        return replace(report, seconds=time.perf_counter() - start)


@dataclass(frozen=True, eq=False)
class Opened:
    """The files of a transfer."""

    adapter: Adapter
    source: Checkpoint | None
    target: Checkpoint


@contextmanager
def opened(entry: Entry, source: str | Path | None, target: str | Path) -> Generator[Opened]:
    """Open the files; names in the adapter are resolved against its own base where that is given."""
    with ExitStack() as stack:
        base = stack.enter_context(open_checkpoint(target))
        origin = None if source is None else stack.enter_context(open_checkpoint(source))
        adapter = read_adapter(entry.path, origin.arch) if origin else read_adapter(entry.path, likely=base.arch)
        yield Opened(adapter, origin, base)


class OutOfPatience(Cancelled):
    """The preview gives up, and the user has not stopped it."""


def impatient(progress: Progress) -> Progress:
    """`progress`, for at most `PATIENCE` seconds."""
    until = time.monotonic() + PATIENCE

    def checked(text: str, done: int, total: int) -> None:
        if time.monotonic() > until:
            raise OutOfPatience("it takes too long for a preview")
        progress(text, done, total)

    return checked


def counted(progress: Progress, done: int, total: int) -> Progress:
    """`progress` of one piece of work among several."""
    if total == 1:
        return progress
    return lambda text, step, steps: progress(f"[{done + 1}/{total}] {text}", step, steps)
