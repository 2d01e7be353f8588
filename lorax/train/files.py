"""LoRA-X files of a network in training: written with fingerprints, read back only on the base that reproduces them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lorax.adapter import BaseHint, Fingerprint, Spectral
from lorax.archs import kohya_name, kohya_names
from lorax.errors import BaseMismatch, LoraxError, UnknownFormat, one_line
from lorax.formats import read_adapter, write_native, write_self_contained
from lorax.formats.fingerprint import MAX_MEAN_ERROR, MAX_MODULE_ERROR
from lorax.linalg import Factors
from lorax.structure import Arch
from lorax.train import plain_files
from lorax.train.module import SpectralLayer
from lorax.version import VERSION


@dataclass(frozen=True)
class Stored:
    """What a file says of the whole network."""

    arch: Arch | None
    """None for a model of no known architecture: its files are read by `Network.load` alone."""
    k: int
    full: bool
    self_contained: bool
    base: BaseHint


@dataclass(frozen=True, eq=False)
class Found:
    """A file's modules under the network's names."""

    values: Mapping[str, Tensor | Factors]
    """σ [k], or the delta as factors"""
    fingerprints: Mapping[str, Fingerprint]
    k: int
    diagonal: bool
    base: BaseHint


@dataclass(frozen=True)
class Loaded:
    """What became of a file's modules."""

    loaded: int
    missing: tuple[str, ...]
    """Modules of the network that the file lacks: they stay as they were."""
    unexpected: tuple[str, ...]
    """Modules of the file that the network lacks."""

    def __str__(self) -> str:
        rest = [
            f"{len(names)} {what} ({names[0]}, …)"
            for what, names in (("not in the file", self.missing), ("unused", self.unexpected))
            if names
        ]
        return f"{self.loaded} modules loaded" + "".join(f", {r}" for r in rest)


def write(
    path: Path, modules: Mapping[str, SpectralLayer], stored: Stored, metadata: Mapping[str, str], dtype: torch.dtype, overwrite: bool
) -> None:
    """A σ file, or a self-contained one where ΔΣ is full or it was asked for."""
    if not modules:
        raise LoraxError("there is nothing to save: the network was not put on a model.")
    said = {**metadata, "lorax.version": VERSION, "lorax.action": "train"}
    if stored.arch is None:
        plain_files.write(path, modules, stored.k, stored.full, stored.base, said, dtype, overwrite)
        return
    names = kohya_names(stored.arch)
    if stored.full or stored.self_contained:
        write_self_contained(
            path,
            {names[name]: module.factors() for name, module in modules.items()},
            stored.arch,
            shapes={names[name]: tuple(module.layer.weight.shape) for name, module in modules.items()},
            k=stored.k,
            diagonal=not stored.full,
            base=stored.base,
            metadata=said,
            dtype=dtype,
            overwrite=overwrite,
        )
        return
    sigmas = {name: module.stored_sigma(dtype) for name, module in modules.items()}
    write_native(
        path,
        {names[name]: sigma for name, sigma in sigmas.items()},
        stored.arch,
        fingerprints={names[name]: modules[name].fingerprint(sigma) for name, sigma in sigmas.items()},
        k=stored.k,
        base=stored.base,
        metadata=said,
        dtype=dtype,
        overwrite=overwrite,
    )


def read(path: Path, arch: Arch | None) -> Found:
    """The LoRA-X file at `path`; UnknownFormat for any other adapter."""
    if arch is None:
        return Found(*plain_files.read(path))
    adapter = read_adapter(path, arch)
    if adapter.native is None:
        raise UnknownFormat(f"'{path.name}' is an ordinary adapter; training goes on from LoRA-X files: make one by 'converter to-lorax'.")
    values: dict[str, Tensor | Factors] = {}
    for layer, module in adapter.modules.items():
        value = module.sigma.float() if isinstance(module, Spectral) else module.factors()
        if value is not None:
            values[kohya_name(arch, layer)] = value
    prints = {kohya_name(arch, layer): f for layer, f in adapter.native.fingerprints.items()}
    return Found(values, prints, adapter.native.k, adapter.native.diagonal, adapter.base)


def load(path: Path, modules: Mapping[str, SpectralLayer], stored: Stored) -> Loaded:
    """Set every module's ΔΣ from the file at `path`; nothing is set where it is refused."""
    found = read(path, stored.arch)
    if found.k > stored.k:
        raise LoraxError(f"'{path.name}' was trained at k = {found.k}, this network has k = {stored.k}: give k = {found.k} (network_dim).")
    if not found.diagonal and not stored.full:
        raise LoraxError(f"'{path.name}' has a full ΔΣ, this network a diagonal one: ask for full (network_args kind=full).")
    new = {name: _on(modules[name], value) for name, value in found.values.items() if name in modules}
    if not new:
        raise BaseMismatch(f"no module of '{path.name}' has a place in this network.")
    _require(path, modules, new, found)
    with torch.no_grad():
        for name, sigma in new.items():
            modules[name].sigma.copy_(sigma)
    return Loaded(len(new), tuple(n for n in modules if n not in new), tuple(n for n in found.values if n not in new))


def _on(module: SpectralLayer, value: Tensor | Factors) -> Tensor:
    """ΔΣ of the module's own shape."""
    if isinstance(value, Factors):
        if value.shape != (module.U.shape[0], module.V.shape[0]):
            raise BaseMismatch(f"a delta of {list(value.shape)} does not fit a layer of {[module.U.shape[0], module.V.shape[0]]}.")
        return module.coordinates(value)
    sigma = torch.zeros(module.k)
    n = min(module.k, value.numel())
    sigma[:n] = value[:n]
    return sigma.diag() if module.full else sigma


def _require(path: Path, modules: Mapping[str, SpectralLayer], new: Mapping[str, Tensor], found: Found) -> None:
    errors = {name: _error(modules[name], sigma, found.fingerprints[name]) for name, sigma in new.items() if name in found.fingerprints}
    if not errors:
        return
    mean = (sum(e * e for e in errors.values()) / len(errors)) ** 0.5
    worst = max(errors, key=lambda name: errors[name])
    if mean > MAX_MEAN_ERROR or errors[worst] > MAX_MODULE_ERROR:
        raise BaseMismatch(
            one_line(
                f"'{path.name}' was trained on {found.base}; on this base its deltas come out {mean:.1%} off ({MAX_MEAN_ERROR:.0%} is"
                f" allowed), worst {errors[worst]:.1%} in {worst}: train on that base, or start without these weights."
            )
        )


def _error(module: SpectralLayer, sigma: Tensor, expected: Fingerprint) -> float:
    """Estimate of ‖ΔW − ΔW′‖_F / ‖ΔW′‖_F as in `lorax.formats.fingerprint.relative_error`; ‖ΔW′‖ = ‖ΔΣ‖."""
    error = sum((x - y) ** 2 for x, y in zip(expected, module.fingerprint(sigma), strict=True)) / len(expected)
    size = float(sigma.double().square().sum())
    if size == 0.0:
        return 0.0 if error == 0.0 else float("inf")
    return (error / size) ** 0.5
