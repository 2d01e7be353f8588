"""An adapter in another form for its own base: a LoRA-X file as a standard LoRA, and an ordinary adapter as a LoRA-X file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lorax.adapter import Adapter, AdapterModule, Fingerprint, Spectral
from lorax.bases import Bases
from lorax.checkpoint import Checkpoint
from lorax.device import resolve_device
from lorax.errors import BaseMismatch, LoraxError
from lorax.formats.fingerprint import FingerprintCheck, fingerprint
from lorax.layers import Layer, LayerId
from lorax.linalg import Factors, energy, flatten_weight
from lorax.transfer.run import compress, source_delta
from lorax.transfer.types import Progress, TransferSettings, no_progress


@dataclass(frozen=True)
class FormChange:
    """What became of one module."""

    layer: LayerId
    energy_in: float
    """‖ΔW‖²_F as the file gives it"""
    energy_out: float
    """‖ΔW‖²_F in the new form"""
    rank: int
    """r of the new form; for σ the number of values."""


@dataclass(frozen=True, eq=False)
class Reformed:
    """An adapter in its new form, ready to be written."""

    modules: Mapping[LayerId, Factors]
    """Deltas as factors; empty for a σ file."""
    shapes: Mapping[LayerId, tuple[int, ...]]
    sigmas: Mapping[LayerId, Tensor]
    """Diagonals of ΔΣ; empty unless a σ file was asked for."""
    fingerprints: Mapping[LayerId, Fingerprint]
    """Of the deltas that `sigmas` give."""
    changes: tuple[FormChange, ...]
    left_out: tuple[tuple[str, str], ...]
    """(module, reason) of what has no place in the base."""

    @property
    def energy_kept(self) -> float | None:
        """Σ‖new‖² / Σ‖old‖² over the modules that have a place."""
        total = sum(c.energy_in for c in self.changes)
        return sum(c.energy_out for c in self.changes) / total if total else None


def export_adapter(
    adapter: Adapter,
    base: Checkpoint,
    settings: TransferSettings | None = None,
    bases: Bases | None = None,
    progress: Progress = no_progress,
) -> Reformed:
    """Any adapter as plain factors for its own base; of `settings` the output rank and energy and the device are used.

    Raises `BaseMismatch` where a σ file's fingerprints do not come out on `base`.
    """
    settings = settings or TransferSettings()
    check = FingerprintCheck(adapter)
    modules: dict[LayerId, Factors] = {}
    changes: list[FormChange] = []
    for layer, module, delta in _deltas(adapter, base, bases or Bases(), settings.device, progress):
        check.add(layer.id, delta)
        factors = compress(delta, module, adapter, settings)
        changes.append(FormChange(layer.id, _energy(delta), factors.energy(), factors.rank))
        modules[layer.id] = Factors(factors.up.cpu(), factors.down.cpu())
    check.require()
    return Reformed(modules, _shapes(base, modules), {}, {}, tuple(changes), left_out(adapter, base))


def to_lorax(
    adapter: Adapter, base: Checkpoint, k: int, device: str = "auto", bases: Bases | None = None, progress: Progress = no_progress
) -> Reformed:
    """An ordinary adapter with a full ΔΣ on the top-k singular directions of its base: ``U_k U_kᵀ ΔW V_k V_kᵀ``, as factors."""
    bases = bases or Bases()
    modules: dict[LayerId, Factors] = {}
    changes: list[FormChange] = []
    for layer, module, delta in _deltas(_ordinary(adapter), base, bases, device, progress):
        span = bases.span(_weight(base, layer, delta), k)
        inside = span.project(delta) if isinstance(delta, Factors) else span.project_dense(delta)
        factors = compress(inside, module, adapter, TransferSettings())
        changes.append(FormChange(layer.id, _energy(delta), factors.energy(), factors.rank))
        modules[layer.id] = Factors(factors.up.cpu(), factors.down.cpu())
    return Reformed(modules, _shapes(base, modules), {}, {}, tuple(changes), left_out(adapter, base))


def to_sigma(
    adapter: Adapter,
    base: Checkpoint,
    k: int,
    dtype: torch.dtype = torch.float16,
    device: str = "auto",
    bases: Bases | None = None,
    progress: Progress = no_progress,
) -> Reformed:
    """An ordinary adapter as diagonals ``σ_i = u_iᵀ ΔW v_i``; dtype: of the file, so that the fingerprints are of what it holds."""
    bases = bases or Bases()
    sigmas: dict[LayerId, Tensor] = {}
    prints: dict[LayerId, Fingerprint] = {}
    changes: list[FormChange] = []
    for layer, _, delta in _deltas(_ordinary(adapter), base, bases, device, progress):
        basis = bases.basis(_weight(base, layer, delta), k)
        left = (basis.U.T @ delta.up) @ (delta.down @ basis.V) if isinstance(delta, Factors) else basis.U.T @ delta @ basis.V
        sigma = left.diagonal().to(dtype)
        rebuilt = Spectral(sigma).on(basis)
        prints[layer.id] = fingerprint(rebuilt)
        changes.append(FormChange(layer.id, _energy(delta), rebuilt.energy(), sigma.numel()))
        sigmas[layer.id] = sigma.cpu()
    return Reformed({}, {}, sigmas, prints, tuple(changes), left_out(adapter, base))


def left_out(adapter: Adapter, base: Checkpoint) -> tuple[tuple[str, str], ...]:
    """Modules without a place in the base, and what is no module, each with its reason."""
    found = [(str(i), reason) for i, module in adapter.modules.items() if (reason := _misfit(base.layers.get(i), module))]
    found += [(str(i), "a bias or norm offset has no place in a LoRA") for i in adapter.offsets]
    return tuple(found)


def _misfit(layer: Layer | None, module: AdapterModule) -> str:
    if layer is None:
        return "the base has no such layer"
    return "" if module.fits(layer.shape) else f"made for a weight of {list(module.shape)}, the base has {list(layer.shape)}"


def _deltas(
    adapter: Adapter, base: Checkpoint, bases: Bases, device: str, progress: Progress
) -> Iterator[tuple[Layer, AdapterModule, Factors | Tensor]]:
    """Every module that has a place, with its delta; one at a time."""
    if adapter.family != base.arch.family:
        raise BaseMismatch(
            f"'{adapter.name}' is for {adapter.family}, but '{base.name}' is {base.arch.family}: give the base that it was made for"
        )
    placed = [(base.layers[i], m) for i, m in adapter.modules.items() if not _misfit(base.layers.get(i), m)]
    if 2 * len(placed) < len(adapter.modules):
        raise BaseMismatch(
            f"only {len(placed)} of {len(adapter.modules)} modules of '{adapter.name}' have a place in '{base.name}': "
            "give the base that it was made for"
        )
    where = resolve_device(device)
    for done, (layer, module) in enumerate(placed):
        progress("converting", done, len(placed))
        delta = source_delta(module, layer.id, base, bases, where)
        if delta is not None:
            yield layer, module, delta
    progress("converting", len(placed), len(placed))


def _ordinary(adapter: Adapter) -> Adapter:
    if adapter.native is not None:
        raise LoraxError(f"'{adapter.name}' is a LoRA-X file already; 'export' writes it as a standard LoRA")
    return adapter


def _weight(base: Checkpoint, layer: Layer, like: Factors | Tensor) -> Tensor:
    """The base's weight as a matrix, where the delta is."""
    return flatten_weight(base.read(layer)).to(like.up.device if isinstance(like, Factors) else like.device)


def _energy(delta: Factors | Tensor) -> float:
    return delta.energy() if isinstance(delta, Factors) else energy(delta)


def _shapes(base: Checkpoint, modules: Mapping[LayerId, Factors]) -> dict[LayerId, tuple[int, ...]]:
    return {i: base.layers[i].shape for i in modules}
