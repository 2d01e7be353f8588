"""Adapter files: one module per dialect, and the one list of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch

from lorax.adapter import Adapter
from lorax.errors import MalformedAdapter
from lorax.formats import kohya, peft
from lorax.formats.reading import Dialect, read_file
from lorax.formats.writing import stored_factors
from lorax.layers import LayerId
from lorax.linalg import Factors
from lorax.safefile import open_tensors, write_safetensors
from lorax.structure import Arch

DIALECTS: tuple[Dialect, ...] = (kohya, peft)
"""Every dialect that is read; a file is of the one that claims most of its tensors."""

Format = Literal["kohya", "peft"]

__all__ = ["DIALECTS", "Format", "read_adapter", "write_adapter"]


def read_adapter(path: str | Path, arch: Arch | None = None) -> Adapter:
    """The adapter in a file, of any dialect and kind.

    arch: resolve the names against this architecture; None: against the family that the names fit, unpruned.
    Raises UnknownFormat where it is no adapter that we know, MalformedAdapter where its tensors make no sense, BaseMismatch
    where it is for another architecture than the given one.
    """
    with open_tensors(Path(path)) as file:
        return read_file(file, DIALECTS, arch)


def write_adapter(
    path: str | Path,
    modules: Mapping[LayerId, Factors],
    arch: Arch,
    *,
    shapes: Mapping[LayerId, tuple[int, ...]],
    format: Format = "kohya",
    dtype: torch.dtype = torch.float16,
    metadata: Mapping[str, str],
    overwrite: bool = False,
) -> None:
    """Write a standard LoRA: factors and alpha (= rank) only, conv as [r, in, kh, kw] and [out, r, 1, 1].

    shapes: the weight shapes of the layers. metadata: see `lorax.formats.metadata`. Modules of rank 0 are left out.
    Raises MalformedAdapter where nothing is left, WouldOverwrite and FileError as `write_safetensors`.
    """
    stored = stored_factors(modules, shapes, dtype)
    if not stored:
        raise MalformedAdapter("Nothing to write: no module has a delta.")
    tensors = (kohya if format == "kohya" else peft).tensors(stored, arch)
    write_safetensors(Path(path), tensors, metadata, overwrite=overwrite)
