"""The weights of a checkpoint with the planned changes in them."""

from __future__ import annotations

import math
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
        original = stored.to(self._device, torch.float64 if stored.dtype == torch.float64 else torch.float32)
        merged = self._sum(original, edits)
        rounded = merged.to(stored.dtype)
        change, error = (float(torch.linalg.vector_norm(d)) for d in (merged - original, rounded.to(merged.dtype) - merged))
        if not (math.isfinite(change) and math.isfinite(error)):  # cheaper than a look at every tensor on the way
            self._explain(name, original, edits, stored.dtype)
        self._change += change**2
        self._error += error**2
        return rounded.cpu()

    def _sum(self, original: Tensor, edits: Sequence[Edit]) -> Tensor:
        merged = original.clone()
        for edit in edits:
            rows = edit.rows
            delta = self._delta(edit, original[rows])
            merged[rows].add_(delta.reshape(merged[rows].shape), alpha=edit.strength)
        return merged

    def _explain(self, name: str, original: Tensor, edits: Sequence[Edit], dtype: torch.dtype) -> None:
        """Raise for what is not finite: the base, a delta, or the sum in `dtype`."""
        if not bool(torch.isfinite(original).all()):
            raise MalformedCheckpoint(one_line(f"'{self._plan.file.path}': '{name}' has values that are NaN or infinite."))
        for edit in edits:
            if not bool(torch.isfinite(self._delta(edit, original[edit.rows])).all()):
                raise MalformedAdapter(one_line(f"The delta of {edit.layer.id} is not finite; the adapter is damaged, or of another base."))
        merged = self._sum(original, edits)
        if not bool(torch.isfinite(merged.to(dtype)).all()):
            raise _overflow(edits, merged, dtype)

    def _delta(self, edit: Edit, weight: Tensor) -> Tensor:
        """ΔW for the original `weight`, fp32."""
        if isinstance(edit.change, Tensor):
            return edit.change.to(self._device, torch.float32)
        factors = self._factors(edit.change, weight)
        delta = edit.change.delta(weight.cpu()).to(self._device) if factors is None else factors.dense()
        self._checks[edit.adapter].add(edit.layer.id, delta if factors is None else factors)
        return delta

    def _factors(self, module: AdapterModule, weight: Tensor) -> Factors | None:
        if isinstance(module, Spectral):
            return module.on(self._bases.basis(flatten_weight(weight).float(), module.rank))
        factors = module.factors()
        return factors and Factors(factors.up.to(self._device), factors.down.to(self._device))


def _overflow(edits: Sequence[Edit], merged: Tensor, dtype: torch.dtype) -> LoraxError:
    limit = torch.finfo(dtype).max
    largest = [float(merged[edit.rows].abs().max()) for edit in edits]
    layer = edits[largest.index(max(largest))].layer.id
    return LoraxError(
        one_line(
            f"{layer}: the merged weight reaches {max(largest):.4g}, {str(dtype).removeprefix('torch.')} holds at most {limit:.4g};"
            " lower the strength, or bake into a copy in a wider dtype."
        )
    )
