"""GGUF files (ggml's docs/gguf.md, versions 2 and 3), read lazily: tensors as stored, quantised ones decoded to fp32."""

from __future__ import annotations

import os
import struct
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from math import prod
from pathlib import Path

from torch import Tensor

from lorax.errors import MalformedFile, one_line
from lorax.header import TORCH_DTYPES, TensorInfo
from lorax.safefile.ggml import ENCODINGS, OTHERS, PLAIN, Encoding
from lorax.safefile.read import Rows, find_tensor, open_binary, part_of, read_bytes

MAGIC = b"GGUF"
TYPES = "gguf.types"
"""Metadata key of ours: the encodings in the file and how many tensors have each, ``Q4_K 280, F32 120``."""
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_SHAPE = "comfy.gguf.orig_shape."
"""Where converters for ComfyUI keep the shape of a tensor that they had to reshape."""
_LIMIT = 1 << 20


@dataclass(frozen=True)
class _Place:
    offset: int
    size: int
    encoding: Encoding | None
    """None: the bytes are the tensor."""

    @property
    def block(self) -> int:
        """Bytes that can only be read together."""
        return 1 if self.encoding is None else self.encoding.nbytes


class GgufFile:
    """An open GGUF file. Threads may share it."""

    ignored: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._file = open_binary(path)
        try:
            header = _Header(self._file)
        except (ValueError, OverflowError) as e:
            self._file.close()
            raise MalformedFile(one_line(f"'{path}' {e!s:.500}")) from None
        except BaseException:
            self._file.close()
            raise
        self.metadata: Mapping[str, str] = header.metadata
        self.tensors: Mapping[str, TensorInfo] = header.tensors
        """What `read` gives: quantised tensors are F32 here."""
        self._places = header.places

    def read(self, name: str, rows: Rows | None = None) -> Tensor:
        info = find_tensor(self.path, self.tensors, name)
        place = self._places[name]
        if rows is not None and place.size % max(info.shape[0] * place.block, 1):
            return self.read(name)[rows[0] : rows[1]].clone()
        shape, (start, stop) = part_of(info.shape, place.size, rows)
        raw = read_bytes(self.path, self._file, self._lock, place.offset + start, stop - start)
        if place.encoding is None:
            return raw.view(TORCH_DTYPES[info.dtype]).reshape(shape)
        return place.encoding.decode(raw.reshape(-1, place.encoding.nbytes)).reshape(shape)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> GgufFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Header:
    """Everything before the data. Raises ValueError with a reason that continues the sentence "FILE …"."""

    def __init__(self, file: BufferedReader) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self._take(len(MAGIC))
        (version,) = self._numbers("I")
        if version not in (2, 3):
            raise ValueError(f"is a GGUF file of version {version}; versions 2 and 3 are read: convert the model again")
        count, pairs = self._numbers("QQ")
        if max(count, pairs) > _LIMIT:
            raise ValueError(f"is damaged: its header promises {count:,} tensors and {pairs:,} entries")
        values = {self._string(): self._value() for _ in range(pairs)}
        self.metadata = {key: value for key, value in values.items() if isinstance(value, str)}
        entries = [self._entry() for _ in range(count)]
        alignment = values.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise ValueError(f"is damaged: it is aligned to {alignment!r} bytes")
        start = -(-file.tell() // alignment) * alignment
        self.tensors: dict[str, TensorInfo] = {}
        self.places: dict[str, _Place] = {}
        for name, shape, kind, offset in entries:
            self._add(name, shape, values.get(_SHAPE + name), kind, start + offset)
        types = Counter(e.name if (e := p.encoding) else self.tensors[name].dtype for name, p in self.places.items())
        self.metadata[TYPES] = ", ".join(f"{name} {number}" for name, number in types.most_common())

    def _add(self, name: str, shape: tuple[int, ...], original: object, kind: int, offset: int) -> None:
        if name in self.tensors:
            raise ValueError(f"is damaged: its header names '{name}' twice")
        encoding = ENCODINGS.get(kind)
        if encoding is None and kind not in PLAIN:
            raise ValueError(f"has '{name}' as {OTHERS.get(kind, f'type {kind}')}, which is not read; give an fp16, Q8_0 or k-quant copy")
        if encoding is not None and (not shape or shape[-1] % encoding.values):
            raise ValueError(f"is damaged: rows of '{name}' {list(shape)} are no multiple of {encoding.name}'s {encoding.values} values")
        dtype = PLAIN[kind] if encoding is None else "F32"
        info = TensorInfo(name, dtype, shape)
        size = info.nbytes if encoding is None else prod(shape) // encoding.values * encoding.nbytes
        if offset + size > self._size:
            raise ValueError(f"is cut short: '{name}' ends at byte {offset + size:,}, {self._size:,} are there; download or copy it again")
        if original is not None:
            if not isinstance(original, tuple) or prod(original) != prod(shape):
                raise ValueError(f"is damaged: '{name}' {list(shape)} is said to have been {original!r}")
            info = TensorInfo(name, dtype, original)
        self.tensors[name], self.places[name] = info, _Place(offset, size, encoding)

    def _entry(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string()
        (dimensions,) = self._numbers("I")
        if dimensions > 8:
            raise ValueError(f"is damaged: tensor '{name}' has {dimensions} dimensions")
        shape = self._numbers("Q" * dimensions)[::-1]  # ggml counts from the fastest
        kind, offset = self._numbers("IQ")
        return name, shape, kind, offset

    def _value(self) -> object:
        """A string or a number; of an array its integers as a tuple, or None where it holds anything else."""
        (kind,) = self._numbers("I")
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._numbers(self._code(kind))[0]
        kind, count = self._numbers("IQ")
        if kind == _STRING:
            for _ in range(count):
                self._string()
            return None
        code = self._code(kind)
        if code.lower() in "bhiq" and count <= 8:
            return self._numbers(code * count)
        self._take(struct.calcsize(f"<{code}") * count)
        return None

    def _code(self, kind: int) -> str:
        if kind not in _NUMBERS:
            raise ValueError(f"is damaged: its metadata has a value of type {kind}")
        return _NUMBERS[kind]

    def _string(self) -> str:
        (length,) = self._numbers("Q")
        return self._take(length).decode("utf-8", errors="replace")

    def _numbers(self, codes: str) -> tuple[int, ...]:
        return struct.unpack(f"<{codes}", self._take(struct.calcsize(f"<{codes}")))

    def _take(self, count: int) -> bytes:
        if count > self._size - self._file.tell():
            raise ValueError("is cut short: its header does not end; download or copy it again")
        return self._file.read(count)
