"""One transfer for a host: open, plan, run, and say in one line what was done."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from lorax.adapter import Adapter
from lorax.bases import Bases
from lorax.checkpoint import Checkpoint, open_checkpoint
from lorax.errors import NotTransferable, SourceNeeded
from lorax.formats import read_adapter
from lorax.hosts.base import KnownBase
from lorax.layers import LayerId
from lorax.linalg import Factors
from lorax.structure import Arch
from lorax.transfer.plan import Relation, plan_transfer, relate
from lorax.transfer.run import Transferred, run_plan
from lorax.transfer.types import Progress, TransferReport, TransferSettings

_ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj")


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
    arch: Arch
    prediction_type: str | None


@dataclass
class Relations:
    """What the last pairs of bases have to do with each other: found once, used for every adapter between them."""

    limit: int = 4
    _known: OrderedDict[tuple[str, ...], tuple[frozenset[LayerId], Relation]] = field(
        default_factory=OrderedDict[tuple[str, ...], tuple[frozenset[LayerId], Relation]]
    )

    def between(self, job: Job, source: Checkpoint, target: Checkpoint, adapter: Adapter, progress: Progress) -> Relation:
        key = str(job.source_sha256), job.target_sha256, *job.beside_sha256
        layers = frozenset(i for i in adapter.modules if i in source.layers)
        known, relation = self._known.get(key, (frozenset[LayerId](), None))
        if relation is None or not layers <= known:
            ordered = [i for i in source.layers if i in layers]
            relation = relate(source, target, ordered, job.settings.device, progress)
            self._known[key] = layers, relation
        self._known.move_to_end(key)
        while len(self._known) > self.limit:
            self._known.popitem(last=False)
        return relation


def work(job: Job, bases: Bases, relations: Relations, progress: Progress) -> Done:
    """Plan and run. Raises LoraxError as `plan_transfer` and `run_plan` do."""
    with open_checkpoint(job.target.spec) as target:
        if job.source is None:
            adapter = _made_for(read_adapter(job.adapter), job, target)
            settings = replace(job.settings, force=True) if adapter.retargeted else job.settings
            plan = plan_transfer(adapter, None, target, settings, progress=progress)
            return Done(adapter, run_plan(plan, adapter, None, target, bases, progress), target.arch, target.prediction_type)
        with open_checkpoint(job.source.spec) as source:
            adapter = read_adapter(job.adapter, source.arch)
            related = adapter.family == source.arch.family == target.arch.family
            relation = relations.between(job, source, target, adapter, progress) if related else None
            plan = plan_transfer(adapter, source, target, job.settings, relation, progress)
            return Done(adapter, run_plan(plan, adapter, source, target, bases, progress), target.arch, target.prediction_type)


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


def whole_attention(done: Done) -> tuple[Mapping[LayerId, Factors], Mapping[LayerId, tuple[int, ...]]]:
    """The factors, with zeros where an OpenCLIP attention has some of q, k, v and out but not all.

    The WebUI applies the four of them together or not at all (networks.network_apply_weights); a zero delta changes nothing.
    """
    modules, shapes = dict(done.transferred.modules), dict(done.transferred.shapes)
    openclip = {component for component, text in done.arch.text if text.kind == "openclip"}
    for layer in list(modules):
        unit, _, _ = layer.path.rpartition(".self_attn.")
        if layer.component not in openclip or not unit:
            continue
        shape = shapes[layer]
        for role in _ATTENTION:
            other = LayerId(layer.component, f"{unit}.{role}")
            if other not in modules:
                modules[other] = Factors(torch.zeros(shape[0], 1), torch.zeros(1, shape[1]))
                shapes[other] = shape
    return modules, shapes


def summarise(job: Job, report: TransferReport) -> str:
    """One line: what was done, from where, how much of it is there, and what to expect."""
    plan, kept = report.plan, report.energy_kept
    done = {"copy": "copied", "project": "projected", "mixed": "copied and projected"}.get(plan.method, plan.method)
    source = f"from {job.source.name} ({job.source_reason})" if job.source else f"({job.source_reason})"
    energy = "" if kept is None else f", {kept:.0%} of the energy"
    return (
        f"{plan.adapter_name}: {done} {source} to {job.target.name}, {report.modules_out} of {report.modules_in} layers{energy}; "
        f"{plan.verdict}: {plan.verdict_reason}"
    )
