"""Adapter files: one module per dialect, and the one list of them."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lorax.adapter import Adapter, BaseHint, Fingerprint, Offset
from lorax.digest import sshs_hashes
from lorax.errors import MalformedAdapter
from lorax.formats import kohya, native, peft
from lorax.formats.fingerprint import FingerprintCheck, fingerprint
from lorax.formats.metadata import output_metadata
from lorax.formats.native import native_metadata
from lorax.formats.reading import Dialect, read_file
from lorax.formats.sidecars import copy_sidecars
from lorax.formats.writing import folded, stored_factors
from lorax.layers import LayerId
from lorax.linalg import Factors
from lorax.safefile import open_tensors, write_safetensors
from lorax.structure import Arch

DIALECTS: tuple[Dialect, ...] = (kohya, peft)
"""Every dialect that is read; a file is of the one that claims most of its tensors."""

Format = Literal["kohya", "peft"]

__all__ = [
    "DIALECTS",
    "FingerprintCheck",
    "Format",
    "copy_sidecars",
    "fingerprint",
    "native_metadata",
    "output_metadata",
    "read_adapter",
    "write_adapter",
    "write_native",
    "write_self_contained",
]


def read_adapter(path: str | Path, arch: Arch | None = None, *, likely: Arch | None = None) -> Adapter:
    """The adapter in a file, of any dialect and kind.

    arch: resolve the names against this architecture; None: against the known one that places most of them, a family's
    unpruned parent before its prunings. likely: one more to try then, such as the target's, which may be a pruning of its own.
    Raises UnknownFormat where it is no adapter that we know, MalformedAdapter where its tensors make no sense, BaseMismatch
    where it is for another architecture than the given one.
    """
    with open_tensors(Path(path)) as file:
        adapter = read_file(file, DIALECTS, arch, likely)
        found = native.read_native(adapter, file.tensors)
    return adapter if found is None else replace(adapter, native=found, format="lorax")


def write_adapter(
    path: str | Path,
    modules: Mapping[LayerId, Factors],
    arch: Arch,
    *,
    shapes: Mapping[LayerId, tuple[int, ...]],
    offsets: Mapping[LayerId, Offset] | None = None,
    format: Format = "kohya",
    dtype: torch.dtype = torch.float16,
    metadata: Mapping[str, str],
    overwrite: bool = False,
) -> None:
    """Write a standard LoRA: factors and alpha (= rank) only, conv as [r, in, kh, kw] and [out, r, 1, 1].

    shapes: the weight shapes of the layers. metadata: see `output_metadata`; the hashes of the file itself are added.
    offsets: biases and norms, which only the WebUIs' own loaders take, under kohya names; a file for others has none.
    Modules of rank 0 are left out. Raises MalformedAdapter where nothing is left, WouldOverwrite and FileError as
    `write_safetensors`.
    """
    stored = stored_factors(modules, shapes, dtype, one_rank=format == "peft")
    if not stored:
        raise MalformedAdapter("There is nothing to write: no module has a delta.")
    beside = kohya.offset_tensors(offsets or {}, arch, dtype)
    _write(Path(path), (kohya if format == "kohya" else peft).tensors(stored, arch) | beside, metadata, overwrite)


def write_self_contained(
    path: str | Path,
    modules: Mapping[LayerId, Factors],
    arch: Arch,
    *,
    shapes: Mapping[LayerId, tuple[int, ...]],
    k: int,
    diagonal: bool,
    base: BaseHint,
    metadata: Mapping[str, str],
    dtype: torch.dtype = torch.float16,
    overwrite: bool = False,
) -> None:
    """Write a self-contained LoRA-X file (docs/format.md): a standard LoRA that every loader takes, and the native metadata.

    Arguments as in `write_adapter` and `write_native`.
    """
    stored = stored_factors(modules, shapes, dtype)
    if not stored:
        raise MalformedAdapter("There is nothing to write: no module has a delta.")
    prints = {layer: fingerprint(folded(*written)) for layer, written in stored.items()}
    ours = native_metadata(arch, prints, k=k, diagonal=diagonal, self_contained=True, base=base)
    _write(Path(path), kohya.tensors(stored, arch), {**metadata, **ours}, overwrite)


def write_native(
    path: str | Path,
    sigmas: Mapping[LayerId, Tensor],
    arch: Arch,
    *,
    fingerprints: Mapping[LayerId, Fingerprint],
    k: int,
    base: BaseHint,
    metadata: Mapping[str, str],
    dtype: torch.dtype = torch.float16,
    overwrite: bool = False,
) -> None:
    """Write a σ file (docs/format.md). sigmas: diagonal of ΔΣ by module, [≤ k]; fingerprints: of the deltas that they give."""
    if not sigmas or sigmas.keys() != fingerprints.keys():
        raise MalformedAdapter(f"A LoRA-X file has one fingerprint per module: {len(sigmas)} modules, {len(fingerprints)} fingerprints.")
    ours = native_metadata(arch, fingerprints, k=k, diagonal=True, self_contained=False, base=base)
    _write(Path(path), native.sigma_tensors(sigmas, arch, dtype), {**metadata, **ours}, overwrite)


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], overwrite: bool) -> None:
    """The file is hashed while it is written: its hashes are in its header."""
    kept = {key: value for key, value in metadata.items() if not key.startswith("sshs_")}
    with ThreadPoolExecutor(1, "lorax-hash") as pool:
        hashes = pool.submit(sshs_hashes, tensors, kept)
        room = {"sshs_model_hash": "0" * 64, "sshs_legacy_hash": "0" * 8}

        def complete() -> dict[str, str]:
            return {**kept, **dict(zip(room, hashes.result(), strict=True))}

        write_safetensors(path, tensors, {**kept, **room}, late=complete, overwrite=overwrite)
