"""Lazy reading: a safetensors file by its header alone, one tensor at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from lorax.errors import FileError, MalformedFile, nearest, one_line
from lorax.header import MAX_HEADER, TORCH_DTYPES, TensorInfo, known_header

Rows = tuple[int, int]
"""First row and the one behind the last."""


class TensorFile(Protocol):
    """What safetensors files, sharded sets and pickles all look like."""

    @property
    def path(self) -> Path: ...

    @property
    def metadata(self) -> Mapping[str, str]: ...

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors, from the header alone."""
        ...

    @property
    def ignored(self) -> tuple[str, ...]:
        """Keys of the file that hold no tensor (a pickle's ``epoch``, optimizer states…)."""
        ...

    def read(self, name: str, rows: Rows | None = None) -> Tensor:
        """The tensor (or its `rows`) as stored, on the CPU, in memory of its own."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> TensorFile: ...

    def __exit__(self, *_: object) -> None: ...


class SafetensorsFile:
    """An open safetensors file. Threads may share it."""

    ignored: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._file = open_binary(path)
        try:
            text, data_size = _read_header(path, self._file)
            header = known_header(text, data_size)
        except ValueError as e:
            self._file.close()
            raise MalformedFile(one_line(f"'{path}' {e!s:.500}.")) from None
        except BaseException:
            self._file.close()
            raise
        self.metadata: Mapping[str, str] = header.metadata
        self.tensors: Mapping[str, TensorInfo] = header.tensors
        self._offsets = header.offsets

    def read(self, name: str, rows: Rows | None = None) -> Tensor:
        info = find_tensor(self.path, self.tensors, name)
        if info.dtype not in TORCH_DTYPES:
            raise FileError(one_line(f"'{self.path}': '{name}' is {info.dtype}, which torch {torch.__version__} cannot hold: update it."))
        shape, (start, stop) = part_of(info.shape, info.nbytes, rows)
        raw = read_bytes(self.path, self._file, self._lock, self._offsets[name] + start, stop - start)
        return raw.view(TORCH_DTYPES[info.dtype]).reshape(shape)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> SafetensorsFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def part_of(shape: tuple[int, ...], nbytes: int, rows: Rows | None) -> tuple[tuple[int, ...], Rows]:
    """The shape of some rows of a tensor, and where they are among its bytes; None: of all of it."""
    if rows is None:
        return shape, (0, nbytes)
    row = nbytes // max(shape[0], 1)
    return (rows[1] - rows[0], *shape[1:]), (rows[0] * row, rows[1] * row)


def read_bytes(path: Path, file: BufferedReader, lock: threading.Lock, offset: int, size: int) -> Tensor:
    """[size] bytes, read straight into the tensor's memory: nothing else is ever allocated."""
    raw = torch.empty(size, dtype=torch.uint8)
    if not size:
        return raw
    try:
        with lock:
            file.seek(offset)
            count = file.readinto(raw.numpy().data)
    except OSError as e:
        raise FileError(one_line(f"'{path}' cannot be read: {e.strerror or e}.")) from None
    if count < size:
        raise MalformedFile(one_line(f"'{path}' became shorter while it was read; start again when it is complete."))
    return raw


def find_tensor(path: Path, tensors: Mapping[str, TensorInfo], name: str) -> TensorInfo:
    """The entry called `name`, or MalformedFile with the nearest name."""
    if name not in tensors:
        raise MalformedFile(one_line(f"'{path}' has no tensor '{name}'.{nearest(name, tensors)}"))
    return tensors[name]


def open_binary(path: Path) -> BufferedReader:
    """Open for reading, with one line for each way in which that fails."""
    try:
        if path.is_dir():
            raise FileError(one_line(f"'{path}' is a folder; a file was expected."))
        return path.open("rb")
    except FileNotFoundError:
        raise FileError(one_line(f"'{path}' does not exist.{_neighbour(path)}")) from None
    except (OSError, ValueError) as e:
        raise FileError(one_line(f"'{path}' cannot be opened: {getattr(e, 'strerror', None) or e}.")) from None


def _neighbour(path: Path) -> str:
    try:
        return nearest(path.name, [p.name for p in path.parent.iterdir()])
    except OSError:
        return f" Nor does the folder '{path.parent}'."


def _read_header(path: Path, file: BufferedReader) -> tuple[bytes, int]:
    """The header's text and the number of bytes behind it. Raises ValueError with a reason."""
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    if len(start) < 8:
        raise ValueError("is cut short: a safetensors file has at least 8 bytes; download or copy it again")
    length = int.from_bytes(start, "little")
    if length > MAX_HEADER:
        raise ValueError(f"is not a safetensors file: its header would be {length:,} bytes long, {MAX_HEADER:,} is the limit")
    if length + 8 > size:
        raise ValueError(f"is cut short: its header needs {length + 8:,} bytes, {size:,} are there; download or copy it again")
    return file.read(length), size - 8 - length
