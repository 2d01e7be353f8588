"""Execute a plan, layer by layer; one layer's weights are in memory at a time. It adds no decision."""

from __future__ import annotations

import contextlib
import math
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lorax.adapter import Adapter, AdapterModule, LowRank, Spectral
from lorax.bases import Bases, Weight
from lorax.checkpoint import Checkpoint
from lorax.device import resolve_device
from lorax.errors import MalformedAdapter
from lorax.formats.fingerprint import FingerprintCheck
from lorax.layers import Layer, LayerId
from lorax.linalg import Factors, energy, factorise, flatten_weight, measure_together
from lorax.spectral import Span
from lorax.transfer.checks import require_transferable
from lorax.transfer.types import (
    DEFAULT_OUT_ENERGY,
    DEFAULT_OUT_RANK,
    LayerDecision,
    LayerResult,
    Progress,
    TransferPlan,
    TransferReport,
    TransferSettings,
    no_progress,
)
from lorax.workers import in_order

BATCH = 16
"""Layers that go together: such as need no base, and on a GPU those of one shape, whose bases are computed in one."""


@dataclass(frozen=True, eq=False)
class Transferred:
    """What a run gives: the low-rank deltas on the target, and the report."""

    modules: Mapping[LayerId, Factors]
    """By target layer, `strength` folded in, balanced; on the CPU, fp32. Copies that were asked for as stored are as the file has them."""
    shapes: Mapping[LayerId, tuple[int, ...]]
    """Weight shapes of those layers."""
    report: TransferReport


def run_plan(
    plan: TransferPlan,
    adapter: Adapter,
    source: Checkpoint | None,
    target: Checkpoint,
    bases: Bases | None = None,
    progress: Progress = no_progress,
    as_stored: bool = False,
) -> Transferred:
    """Carry every planned layer. Raises `NotTransferable` for a refused plan, `BaseMismatch` where a native file's
    fingerprints do not come out on `source`.

    as_stored: copies stay in the file's own tensors and dtype, for who only writes them again.
    """
    require_transferable(plan)
    start = time.perf_counter()
    work = _Work(plan, adapter, source, target, bases or Bases(), resolve_device(plan.settings.device), as_stored)
    shares = shared_out(plan, adapter, target, work.device)
    done: dict[LayerDecision, tuple[LayerResult, Factors | None]] = {}
    with contextlib.closing(in_order(shares, work.read, work.carry, work.nbytes, work.device)) as stream:
        for share in shares:
            progress("transferring", len(done), len(plan.decisions))
            done.update(zip(share, next(stream), strict=True))
    work.bases.save()
    work.check.require()
    progress("transferring", len(plan.decisions), len(plan.decisions))
    results = tuple(done[decision][0] for decision in plan.decisions)
    modules = {d.target: f for d in plan.decisions if (f := done[d][1]) is not None and d.target is not None and f.rank}
    shapes = {i: target.layers[i].shape for i in modules}
    report = TransferReport(plan, results, adapter.unmatched, time.perf_counter() - start)
    return Transferred(modules, shapes, report)


@dataclass
class _Work:
    """What the layers of a plan share while they are carried, several at a time."""

    plan: TransferPlan
    adapter: Adapter
    source: Checkpoint | None
    target: Checkpoint
    bases: Bases
    device: torch.device
    as_stored: bool
    check: FingerprintCheck = field(init=False)

    def __post_init__(self) -> None:
        self.check = FingerprintCheck(self.adapter)

    def nbytes(self, share: Sequence[LayerDecision]) -> int:
        """Size of the weights that `read` gives, in fp32."""
        layers = [layer for decision in share if (layer := projected(decision, self.target))]
        return sum(4 * layer.out_features * layer.in_features for layer in layers)

    def read(self, share: Sequence[LayerDecision]) -> list[Weight]:
        """The target's weights on which the share is projected."""
        layers = [(layer, d.k) for d in share if (layer := projected(d, self.target)) and d.k]
        return [self.bases.weight(self.target, layer, self.device, k) for layer, k in layers]

    def carry(self, share: Sequence[LayerDecision], weights: Sequence[Weight]) -> list[tuple[LayerResult, Factors | None]]:
        """Each layer's line in the report, and what is written of it."""
        k = share[0].k
        spans = self.bases.spans(weights, k) if weights and k else [None] * len(share)
        unchanged = {d: self._unchanged(d) for d in share}
        measure_together(delta for delta in unchanged.values() if delta is not None)
        return [self._carry(d, unchanged[d], span) for d, span in zip(share, spans, strict=True)]

    def _unchanged(self, decision: LayerDecision) -> Factors | None:
        """A copy that is only written again, in the file's own tensors where they hold the same numbers."""
        if not self.as_stored or decision.action != "copy" or decision.source is None or self.plan.settings.strength != 1.0:
            return None
        module = self.adapter.modules[decision.source]
        if not isinstance(module, LowRank) or not kept_as_it_is(module, self.adapter, self.plan.settings):
            return None
        stored = module.stored()
        return module.factors() if stored is None else Factors(*stored)

    def _carry(self, decision: LayerDecision, unchanged: Factors | None, span: Span | None) -> tuple[LayerResult, Factors | None]:
        if decision.source is None:
            return LayerResult(decision, 0.0, 0.0, 0), None
        module = self.adapter.modules[decision.source]
        delta = unchanged or source_delta(module, decision.source, self.source, self.bases, self.device)
        if delta is None:
            return LayerResult(decision, 0.0, 0.0, 0), None
        self.check.add(decision.source, delta)
        energy_in = delta.energy() if isinstance(delta, Factors) else energy(delta)
        if decision.action == "skip" or decision.target is None:
            return LayerResult(decision, energy_in, 0.0, 0), None
        if decision.action == "copy" and isinstance(delta, Factors) and kept_as_it_is(module, self.adapter, self.plan.settings):
            factors, energy_out = delta if unchanged and energy_in > 0 else delta.balanced(), energy_in
        else:
            factors = compress(carry(self.plan, decision, delta, span), module, self.adapter, self.plan.settings)
            energy_out = factors.energy()
        if not math.isfinite(energy_out):
            raise MalformedAdapter(f"{decision.source}: the transferred delta is not finite; the adapter holds values that are too large")
        written = factors if factors.up.device.type == "cpu" else Factors(factors.up.cpu(), factors.down.cpu())
        return LayerResult(decision, energy_in, energy_out, factors.rank), written.scaled(self.plan.settings.strength)


def shared_out(plan: TransferPlan, adapter: Adapter, target: Checkpoint, device: torch.device) -> list[tuple[LayerDecision, ...]]:
    """The decisions one by one; but copies of one shape together, and on a GPU projections of one shape and k."""

    def likeness(decision: LayerDecision) -> object:
        if (layer := projected(decision, target)) is not None:
            return decision if device.type == "cpu" else (layer.out_features, layer.in_features, decision.k)
        module = adapter.modules[decision.source] if decision.source is not None else None
        if module is None or not module.needs_base:
            return decision.action, module and module.shape
        return decision

    alike: dict[object, list[LayerDecision]] = defaultdict(list)
    for decision in plan.decisions:
        alike[likeness(decision)].append(decision)
    return [tuple(group[i : i + BATCH]) for group in alike.values() for i in range(0, len(group), BATCH)]


def projected(decision: LayerDecision, target: Checkpoint) -> Layer | None:
    """The target layer on whose span a decision projects."""
    if decision.action != "project" or decision.target is None or decision.k is None:
        return None
    return target.layers[decision.target]


def source_delta(
    module: AdapterModule, layer: LayerId, source: Checkpoint | None, bases: Bases, device: torch.device
) -> Factors | Tensor | None:
    """ΔW_s as factors where it has them, else dense; None where it needs a source that is not given."""
    factors = module.factors()
    if factors is not None:
        return factors if device.type == "cpu" else Factors(factors.up.to(device), factors.down.to(device))
    if not module.needs_base:
        return module.delta().to(device)
    if source is None or layer not in source.layers:
        return None
    weight = source.read(source.layers[layer])
    if isinstance(module, Spectral):
        return module.on(bases.basis(flatten_weight(weight).to(device), module.rank))
    return module.delta(weight).to(device)


def carry(plan: TransferPlan, decision: LayerDecision, delta: Factors | Tensor, span: Span | None) -> Factors | Tensor:
    """ΔW_t: the copy, the delta in the target's channels, or Eq. 3 on the target's span."""
    if decision.target is not None and decision.action == "align" and plan.alignment is not None:
        return plan.alignment.carry(decision.target, delta)
    if span is None:
        return delta
    return span.project(delta) if isinstance(delta, Factors) else span.project_dense(delta)


def kept_as_it_is(module: AdapterModule, adapter: Adapter, settings: TransferSettings) -> bool:
    """An ordinary LoRA keeps its rank, unless another is asked for; everything else is cut."""
    asked = settings.out_rank is not None or settings.out_energy is not None
    return not asked and isinstance(module, LowRank) and adapter.native is None


def compress(delta: Factors | Tensor, module: AdapterModule, adapter: Adapter, settings: TransferSettings) -> Factors:
    """The factors to write: an ordinary LoRA keeps its rank, everything else is cut as `TransferSettings` says."""
    rank, kept = settings.out_rank, settings.out_energy
    if rank is None and kept is None and not kept_as_it_is(module, adapter, settings):
        rank, kept = DEFAULT_OUT_RANK, DEFAULT_OUT_ENERGY
    return delta.compressed(rank, kept) if isinstance(delta, Factors) else factorise(delta, rank, kept)
