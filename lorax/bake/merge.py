"""The weights of a checkpoint with the planned changes in them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lorax.adapter import Adapter, AdapterModule, Spectral
from lorax.bake.plan import BakePlan, Edit
from lorax.bases import Bases
from lorax.errors import LoraxError, MalformedAdapter, MalformedCheckpoint, one_line
from lorax.formats.fingerprint import FingerprintCheck
from lorax.linalg import Factors, flatten_weight


class Merge:
    """Reads tensors with the edits in them, and keeps account of the rounding."""

    def __init__(self, plan: BakePlan, adapters: Sequence[tuple[Adapter, float]], device: torch.device, bases: Bases) -> None:
        self._plan = plan
        self._device = device
        self._bases = bases
        self._checks = [FingerprintCheck(adapter) for adapter, _ in adapters]
        self._left = len(plan.edits)
        self._change = self._error = 0.0

    @property
    def rounding(self) -> float:
        return self._error / self._change if self._change else 0.0

    def read(self, name: str) -> Tensor:
        """The tensor in its stored dtype."""
        stored = self._plan.file.read(name)
        edits = self._plan.edits.get(name)
        if edits is None:
            return stored
        merged = self._merge(name, stored, edits)
        self._left -= 1
        if self._left == 0:
            for check in self._checks:
                check.require()
        return merged

    def _merge(self, name: str, stored: Tensor, edits: Sequence[Edit]) -> Tensor:
        work = torch.float64 if stored.dtype == torch.float64 else torch.float32
        original = stored.to(self._device, work)
        if not bool(torch.isfinite(original).all()):
            raise MalformedCheckpoint(one_line(f"'{self._plan.file.path}': '{name}' has values that are NaN or infinite."))
        merged = original.clone()
        for edit in edits:
            rows = slice(None) if edit.layer.rows is None else slice(*edit.layer.rows)
            delta = self._delta(edit, original[rows])
            merged[rows] += edit.strength * delta.reshape(merged[rows].shape).to(work)
        rounded = merged.to(stored.dtype)
        again = rounded.to(work)
        if not bool(torch.isfinite(again).all()):
            raise _overflow(edits, merged, stored.dtype)
        self._change += float(torch.linalg.vector_norm(merged - original)) ** 2
        self._error += float(torch.linalg.vector_norm(again - merged)) ** 2
        return rounded.cpu()

    def _delta(self, edit: Edit, weight: Tensor) -> Tensor:
        """ΔW for the original `weight`, fp32."""
        if isinstance(edit.change, Tensor):
            return edit.change.to(self._device, torch.float32)
        factors = self._factors(edit.change, weight)
        delta = edit.change.delta(weight.cpu()).to(self._device) if factors is None else factors.dense()
        self._checks[edit.adapter].add(edit.layer.id, delta if factors is None else factors)
        if not bool(torch.isfinite(delta).all()):
            raise MalformedAdapter(one_line(f"The delta of {edit.layer.id} is not finite; the adapter is damaged, or of another base."))
        return delta

    def _factors(self, module: AdapterModule, weight: Tensor) -> Factors | None:
        if isinstance(module, Spectral):
            return module.on(self._bases.basis(flatten_weight(weight).float(), module.rank))
        factors = module.factors()
        return factors and Factors(factors.up.to(self._device), factors.down.to(self._device))


def _overflow(edits: Sequence[Edit], merged: Tensor, dtype: torch.dtype) -> LoraxError:
    limit = torch.finfo(dtype).max
    rows = [slice(None) if edit.layer.rows is None else slice(*edit.layer.rows) for edit in edits]
    largest = [float(merged[r].abs().max()) for r in rows]
    layer = edits[largest.index(max(largest))].layer.id
    return LoraxError(
        one_line(
            f"{layer}: the merged weight reaches {max(largest):.4g}, {str(dtype).removeprefix('torch.')} holds at most {limit:.4g};"
            " lower the strength, or bake into a copy in a wider dtype."
        )
    )
