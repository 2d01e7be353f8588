"""Execute a plan, layer by layer; one layer's weights are in memory at a time. It adds no decision."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lorax.adapter import Adapter, AdapterModule, LowRank, Spectral
from lorax.bases import Bases
from lorax.checkpoint import Checkpoint
from lorax.device import resolve_device
from lorax.errors import MalformedAdapter
from lorax.formats.fingerprint import FingerprintCheck
from lorax.layers import Layer, LayerId
from lorax.linalg import Factors, all_finite, energy, factorise, flatten_weight
from lorax.transfer.plan import require_transferable
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


@dataclass(frozen=True, eq=False)
class Transferred:
    """What a run gives: the low-rank deltas on the target, and the report."""

    modules: Mapping[LayerId, Factors]
    """By target layer, `strength` folded in, balanced; on the CPU."""
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
) -> Transferred:
    """Carry every planned layer. Raises `NotTransferable` for a refused plan, `BaseMismatch` where a native file's
    fingerprints do not come out on `source`."""
    require_transferable(plan)
    start = time.perf_counter()
    bases = bases or Bases()
    device = resolve_device(plan.settings.device)
    check = FingerprintCheck(adapter)
    modules: dict[LayerId, Factors] = {}
    results: list[LayerResult] = []
    for done, decision in enumerate(plan.decisions):
        progress("transferring", done, len(plan.decisions))
        if decision.source is None:
            results.append(LayerResult(decision, 0.0, 0.0, 0))
            continue
        module = adapter.modules[decision.source]
        delta = source_delta(module, decision.source, source, bases, device)
        if delta is None:
            results.append(LayerResult(decision, 0.0, 0.0, 0))
            continue
        check.add(decision.source, delta)
        energy_in = delta.energy() if isinstance(delta, Factors) else energy(delta)
        if decision.action == "skip" or decision.target is None:
            results.append(LayerResult(decision, energy_in, 0.0, 0))
            continue
        carried = carry(decision, delta, target, target.layers[decision.target], bases)
        factors = compress(carried, module, adapter, plan.settings)
        if not (all_finite(factors.up) and all_finite(factors.down)):
            raise MalformedAdapter(f"{decision.source}: the transferred delta is not finite; the adapter holds values that are too large")
        modules[decision.target] = Factors(factors.up.cpu(), factors.down.cpu()).scaled(plan.settings.strength)
        results.append(LayerResult(decision, energy_in, factors.energy(), factors.rank))
    check.require()
    progress("transferring", len(plan.decisions), len(plan.decisions))
    modules = {i: f for i, f in modules.items() if f.rank}
    shapes = {i: target.layers[i].shape for i in modules}
    report = TransferReport(plan, tuple(results), adapter.unmatched, time.perf_counter() - start)
    return Transferred(modules, shapes, report)


def source_delta(
    module: AdapterModule, layer: LayerId, source: Checkpoint | None, bases: Bases, device: torch.device
) -> Factors | Tensor | None:
    """ΔW_s as factors where it has them, else dense; None where it needs a source that is not given."""
    factors = module.factors()
    if factors is not None:
        return Factors(factors.up.to(device), factors.down.to(device))
    if not module.needs_base:
        return module.delta().to(device)
    if source is None or layer not in source.layers:
        return None
    weight = source.read(source.layers[layer])
    if isinstance(module, Spectral):
        return module.on(bases.basis(flatten_weight(weight).to(device), module.rank))
    return module.delta(weight).to(device)


def carry(decision: LayerDecision, delta: Factors | Tensor, target: Checkpoint, layer: Layer, bases: Bases) -> Factors | Tensor:
    """ΔW_t: the copy, or Eq. 3 on the target's span."""
    if decision.action == "copy" or decision.k is None:
        return delta
    reference = delta.up if isinstance(delta, Factors) else delta
    span = bases.span(flatten_weight(target.read(layer)).to(reference.device), decision.k)
    return span.project(delta) if isinstance(delta, Factors) else span.project_dense(delta)


def compress(delta: Factors | Tensor, module: AdapterModule, adapter: Adapter, settings: TransferSettings) -> Factors:
    """The factors to write: an ordinary LoRA keeps its rank, everything else is cut as `TransferSettings` says."""
    rank, kept = settings.out_rank, settings.out_energy
    if rank is None and kept is None and not (isinstance(module, LowRank) and adapter.native is None):
        rank, kept = DEFAULT_OUT_RANK, DEFAULT_OUT_ENERGY
    return delta.compressed(rank, kept) if isinstance(delta, Factors) else factorise(delta, rank, kept)
