"""One transfer for a host: open, plan, run, and say in one line what was done."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Hashable
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from lorax.adapter import Adapter
from lorax.bases import Bases
from lorax.checkpoint import Checkpoint, open_checkpoint
from lorax.errors import NotTransferable, SourceNeeded
from lorax.formats import read_adapter
from lorax.hosts.base import KnownBase
from lorax.layers import LayerId
from lorax.render import share_to_text
from lorax.retarget.hosted import Hosted, hosted
from lorax.structure import Arch
from lorax.transfer.kept import related
from lorax.transfer.plan import plan_transfer
from lorax.transfer.relate import Relation
from lorax.transfer.run import Transferred, run_plan
from lorax.transfer.types import Progress, TransferPlan, TransferReport, TransferSettings


@dataclass(frozen=True)
class Job:
    """What to transfer."""

    adapter: Path
    target: KnownBase
    source: KnownBase | None
    settings: TransferSettings
    source_reason: str
    target_sha256: str
    source_sha256: str | None
    beside_sha256: tuple[str, ...] = ()
    """Of the files with the target's text encoders."""


@dataclass(frozen=True, eq=False)
class Done:
    """What came of a `Job`."""

    adapter: Adapter
    transferred: Transferred
    hosted: Hosted
    arch: Arch
    prediction_type: str | None


@dataclass
class Relations:
    """What the last pairs of bases have to do with each other: found once, used for every adapter between them."""

    limit: int = 4
    folder: Path | None = None
    """Where they are kept beyond this process."""
    _known: OrderedDict[Hashable, tuple[frozenset[LayerId], Relation]] = field(
        default_factory=OrderedDict[Hashable, tuple[frozenset[LayerId], Relation]]
    )

    def between(
        self, pair: Hashable, source: Checkpoint, target: Checkpoint, adapter: Adapter, settings: TransferSettings, progress: Progress
    ) -> Relation:
        """pair: what tells the pair of bases from every other."""
        key = pair, settings.method
        layers = frozenset(i for i in adapter.modules if i in source.layers)
        known, relation = self._known.get(key, (frozenset[LayerId](), None))
        if relation is None or not layers <= known:
            ordered = [i for i in source.layers if i in layers]
            relation = related(source, target, ordered, settings.device, progress, settings.method, self.folder)
            self._known[key] = layers, relation
        self._known.move_to_end(key)
        while len(self._known) > self.limit:
            self._known.popitem(last=False)
        return relation


@dataclass(frozen=True, eq=False)
class Planned:
    """A job's opened files and its plan."""

    adapter: Adapter
    source: Checkpoint | None
    target: Checkpoint
    plan: TransferPlan


@contextmanager
def planned(job: Job, relations: Relations, progress: Progress) -> Generator[Planned]:
    """Open and plan. Raises LoraxError as `plan_transfer` does."""
    with open_checkpoint(job.target.spec) as target:
        if job.source is None:
            adapter = _made_for(read_adapter(job.adapter, likely=target.arch), job, target)
            settings = replace(job.settings, force=True) if adapter.retargeted else job.settings
            yield Planned(adapter, None, target, plan_transfer(adapter, None, target, settings, progress=progress))
            return
        with open_checkpoint(job.source.spec) as source:
            adapter = read_adapter(job.adapter, source.arch)
            related = adapter.family == source.arch.family == target.arch.family
            key = str(job.source_sha256), job.target_sha256, *job.beside_sha256
            relation = relations.between(key, source, target, adapter, job.settings, progress) if related else None
            yield Planned(adapter, source, target, plan_transfer(adapter, source, target, job.settings, relation, progress))


def work(job: Job, bases: Bases, relations: Relations, progress: Progress) -> Done:
    """Plan and run. Raises LoraxError as `plan_transfer` and `run_plan` do."""
    with planned(job, relations, progress) as made:
        transferred = run_plan(made.plan, made.adapter, made.source, made.target, bases, progress)
        return _done(made.adapter, made.target, transferred)


def _done(adapter: Adapter, target: Checkpoint, transferred: Transferred) -> Done:
    return Done(adapter, transferred, hosted(adapter, transferred, target), target.arch, target.prediction_type)


def _made_for(adapter: Adapter, job: Job, target: Checkpoint) -> Adapter:
    """An adapter that a transfer made is only used on the base that it was made for."""
    made_for = adapter.metadata.get("lorax.target_base_sha256") or adapter.base.sha256
    if adapter.retargeted and made_for not in (None, job.target_sha256):
        raise NotTransferable(
            f"'{adapter.name}' was made by a transfer, for {adapter.metadata.get('lorax.target_base', 'another base')}: "
            f"use the original adapter, {adapter.metadata.get('lorax.source_adapter', 'which it was made from')}, on {target.name}"
        )
    return adapter


def require_source(name: str, reason: str) -> None:
    """Refuse an adapter whose source is unknown, where the settings say so."""
    raise SourceNeeded(f"'{name}' {reason}: put source=<checkpoint> into the tag, or let the settings copy such adapters")


def losses(done: Done) -> list[str]:
    """One phrase for each kind of thing in the adapter's file that is not in the host's."""
    found: list[str] = []
    for what, lost in (
        ("tensors of its file are not used", dict(done.adapter.unmatched)),
        ("of its biases and norms are left out", {str(i): reason for i, reason in done.hosted.left_out.items()}),
    ):
        if lost:
            first, reason = next(iter(lost.items()))
            found.append(f"{done.adapter.name}: {len(lost)} {what} ({first}: {reason})")
    return found


def summarise(job: Job, report: TransferReport) -> str:
    """One line: what was done, from where, how much of it is there, and what to expect."""
    plan, kept = report.plan, report.energy_kept
    done = {"align": "aligned", "copy": "copied", "project": "projected", "mixed": "copied and projected"}.get(plan.method, plan.method)
    source = f"from {job.source.name} ({job.source_reason})" if job.source else f"({job.source_reason})"
    energy = "" if kept is None else f", {share_to_text(kept)} of the energy"
    return (
        f"{plan.adapter_name}: {done} {source} to {job.target.name}, {report.modules_out} of {report.modules_in} layers{energy}; "
        f"{plan.verdict}: {plan.verdict_reason}"
    )
