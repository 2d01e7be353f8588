"""Writing: a file appears whole under its name, or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor

from lorax.errors import FileError, WouldOverwrite, one_line
from lorax.header import DTYPE_NAMES, TensorInfo, build_header, data_order, tensor_bytes, tensor_info

Metadata = Mapping[str, str]


class Write(Protocol):
    """Write bytes behind those before; `at`: over those at that place."""

    def __call__(self, content: bytes | memoryview, at: int | None = None, /) -> None: ...


def write_safetensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Metadata, *, late: Callable[[], Metadata] | None = None, overwrite: bool = False
) -> None:
    """Write `tensors` as a safetensors file; equal content gives equal bytes. `late` and what is raised: as in `stream_safetensors`."""
    entries = [tensor_info(name, t) for name, t in tensors.items()]
    stream_safetensors(path, entries, tensors.__getitem__, metadata, late=late, overwrite=overwrite)


def stream_safetensors(
    path: Path,
    entries: Sequence[TensorInfo],
    read: Callable[[str], Tensor],
    metadata: Metadata,
    *,
    late: Callable[[], Metadata] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a safetensors file one tensor at a time: `read(name)` is called once for each entry, in the order of the file.

    late: asked for the metadata when the data is written, so that it may be computed meanwhile; it has the keys of `metadata`, which
    only shows how long the values are.
    The file is made under another name in the same folder and renamed when it is complete; whatever is raised meanwhile
    (by `read` too) leaves neither. Raises WouldOverwrite where `path` exists and `overwrite` is not set, FileError where the
    disk is full or the folder cannot be written.
    """
    ordered = data_order(entries)
    try:
        header = build_header(ordered, metadata)
    except ValueError as e:
        raise FileError(one_line(f"'{path}' cannot be written: {e}.")) from None
    with replacing(path, overwrite=overwrite, size=len(header) + sum(e.nbytes for e in ordered)) as write:
        write(header)
        for entry in ordered:
            write(_stored_bytes(entry, read(entry.name)))
        if late is not None:
            write(_of_length(build_header(ordered, late()), len(header)), 0)


def _of_length(header: bytes, length: int) -> bytes:
    if len(header) != length:
        raise ValueError(f"the header was announced with {length} bytes, got {len(header)}")
    return header


def _stored_bytes(entry: TensorInfo, tensor: Tensor) -> memoryview:
    if DTYPE_NAMES.get(tensor.dtype) != entry.dtype or tuple(tensor.shape) != entry.shape:
        raise ValueError(f"'{entry.name}' was announced as {entry.dtype} {entry.shape}, got {tensor.dtype} {tuple(tensor.shape)}")
    return tensor_bytes(tensor)


def write_text(path: Path, text: str, *, overwrite: bool = False) -> None:
    """Write `text` as UTF-8 with its line ends as they are. Raises as `stream_safetensors`."""
    content = text.encode("utf-8", "backslashreplace")
    with replacing(path, overwrite=overwrite, size=len(content)) as write:
        write(content)


@contextlib.contextmanager
def replacing(path: Path, *, overwrite: bool = False, size: int = 0) -> Generator[Write]:
    """Yield a function that writes bytes to a temporary file, which becomes `path` when the block ends without an exception.

    size: bytes to come, where known: a disk that has not that much left is refused at the start.
    """
    path = Path(path)
    _check_free(path, overwrite)
    _check_space(path, size)
    temporary = path.parent / f".lorax-{secrets.token_hex(4)}.tmp"
    with _explained(path):
        file = temporary.open("xb", buffering=0)
    try:

        def write(content: bytes | memoryview, at: int | None = None, /) -> None:
            rest = memoryview(content)
            with _explained(path):
                if at is not None:
                    file.seek(at)
                while rest:
                    rest = rest[file.write(rest) :]

        yield write
        with _explained(path):
            os.fsync(file.fileno())
            file.close()
        _check_free(path, overwrite)
        with _explained(path):
            temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            file.close()
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _check_free(path: Path, overwrite: bool) -> None:
    if path.is_dir():
        raise FileError(one_line(f"'{path}' is a folder; a file name was expected."))
    if not overwrite and os.path.lexists(path):
        raise WouldOverwrite(one_line(f"'{path}' exists already; give another name, or ask to overwrite it (--force)."))


def _check_space(path: Path, size: int) -> None:
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError:
        return  # opening the file will say what is wrong
    if 0 < free < size:
        raise FileError(one_line(f"'{path}' needs {size:,} bytes, {free:,} are left on that disk; free some, or write elsewhere."))


@contextlib.contextmanager
def _explained(path: Path) -> Generator[None]:
    """OSError as one line that names the output."""
    try:
        yield
    except FileNotFoundError:
        raise FileError(one_line(f"'{path}' cannot be written: the folder '{path.parent}' does not exist; create it first.")) from None
    except OSError as e:
        raise FileError(one_line(f"'{path}' cannot be written: {e.strerror or e}.")) from None
