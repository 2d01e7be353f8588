"""The safetensors layout: dtype names, the JSON header, the order of the data. Bytes in, values out; no file is touched.

Format: https://huggingface.co/docs/safetensors — 8 bytes little-endian header length, a JSON header padded with spaces to a
multiple of 8, then the tensors without holes. A file is laid out exactly as the safetensors library lays it out (widest dtype
first, then by name), so every tensor is aligned to its own dtype and hashes taken by other programs agree with ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, TypeGuard, cast

import torch
from torch import Tensor

MAX_HEADER = 100_000_000
"""Readers refuse a longer header, so that a damaged length cannot make them allocate the rest of memory."""
REMEMBERED = 4_000_000
"""Longer headers are not kept in memory; a whole SDXL model's has a tenth of it."""

BITS: Mapping[str, int] = {
    "U64": 64,
    "I64": 64,
    "F64": 64,
    "C64": 64,
    "F32": 32,
    "U32": 32,
    "I32": 32,
    "BF16": 16,
    "F16": 16,
    "U16": 16,
    "I16": 16,
    "F8_E5M2FNUZ": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E8M0": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "I8": 8,
    "U8": 8,
    "F6_E3M2": 6,
    "F6_E2M3": 6,
    "F4": 4,
    "BOOL": 8,
}
"""Bits of one element of each dtype, in the order in which the library lays tensors out."""

_TORCH_NAMES: Mapping[str, str] = {
    "U64": "uint64",
    "I64": "int64",
    "F64": "float64",
    "C64": "complex64",
    "F32": "float32",
    "U32": "uint32",
    "I32": "int32",
    "BF16": "bfloat16",
    "F16": "float16",
    "U16": "uint16",
    "I16": "int16",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}

TORCH_DTYPES: Mapping[str, torch.dtype] = {name: getattr(torch, t) for name, t in _TORCH_NAMES.items() if hasattr(torch, t)}
"""The dtypes that this torch has; older ones lack a few."""

DTYPE_NAMES: Mapping[torch.dtype, str] = {dtype: name for name, dtype in TORCH_DTYPES.items()}


@dataclass(frozen=True)
class TensorInfo:
    """What a header says of one tensor."""

    name: str
    dtype: str
    """safetensors' name of the dtype, e.g. ``F16``."""
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * BITS[self.dtype] // 8


def tensor_info(name: str, tensor: Tensor) -> TensorInfo:
    """The entry that `tensor` gets in a file. Raises TypeError for a dtype that the format does not have."""
    if tensor.dtype not in DTYPE_NAMES:
        raise TypeError(f"'{name}' is {tensor.dtype}, which safetensors cannot hold")
    return TensorInfo(name, DTYPE_NAMES[tensor.dtype], tuple(tensor.shape))


@dataclass(frozen=True)
class Header:
    """A header that was checked against the size of its file."""

    tensors: Mapping[str, TensorInfo]
    """In the order of the file."""
    offsets: Mapping[str, int]
    """First byte of each tensor, counted from the start of the file."""
    metadata: Mapping[str, str]


def parse_header(text: bytes, data_size: int) -> Header:
    """The header `text` (without its length) of a file in which `data_size` bytes follow it.

    Raises ValueError with a reason that continues the sentence "FILE …".
    """
    entries = _parse_json(text)
    metadata = _check_metadata(entries.pop("__metadata__", None))
    spans = sorted((_check_entry(name, entry) for name, entry in entries.items()), key=lambda span: span[:2])
    base, end = 8 + len(text), 0
    for start, stop, info in spans:
        if start != end:
            raise ValueError(f"is damaged: tensor '{info.name}' starts at byte {start}, the one before it ends at {end}")
        end = stop
    if end > data_size:
        raise ValueError(f"is cut short: its tensors need {end:,} bytes, {data_size:,} are there; download or copy it again")
    if end < data_size:
        raise ValueError(f"is damaged: {data_size - end:,} bytes follow the last tensor")
    return Header({i.name: i for _, _, i in spans}, {i.name: base + start for start, _, i in spans}, metadata)


def known_header(text: bytes, data_size: int) -> Header:
    """`parse_header`, remembered by content: the same few bases and adapters are opened again and again."""
    return _remembered(text, data_size) if len(text) <= REMEMBERED else parse_header(text, data_size)


@lru_cache(maxsize=8)
def _remembered(text: bytes, data_size: int) -> Header:
    return parse_header(text, data_size)


def _parse_json(text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            raise _DuplicateName(next(name for name in names if names.count(name) > 1))
        return found

    try:
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except _DuplicateName as e:
        raise ValueError(f"is damaged: its header names '{e.name}' twice") from None
    except (ValueError, RecursionError):
        raise ValueError("is not a safetensors file: its header is not JSON; download or convert it again") from None
    if not isinstance(entries, dict):
        raise ValueError("is not a safetensors file: its header is not a JSON object")
    return cast("dict[str, Any]", entries)


class _DuplicateName(Exception):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def _check_metadata(metadata: object) -> dict[str, str]:
    if metadata is None:
        return {}
    if not isinstance(metadata, dict):
        raise ValueError("is damaged: its __metadata__ is not a JSON object of strings")
    wrong = next((k for k, v in metadata.items() if not isinstance(v, str)), None)
    if wrong is not None:
        raise ValueError(f"is damaged: its metadata '{wrong}' is not a string, as the format demands")
    return cast("dict[str, str]", metadata)


def _are_counts(values: object) -> TypeGuard[list[int]]:
    """Whether it is a list of integers that are not negative (`True` is none)."""
    return isinstance(values, list) and {int}.issuperset(map(type, values)) and min(values, default=0) >= 0


def _check_entry(name: str, entry: Any) -> tuple[int, int, TensorInfo]:
    """(start, stop, info) of one header entry, offsets counted from the end of the header."""
    if not isinstance(entry, dict):
        raise ValueError(f"is damaged: the header entry of '{name}' is not an object")
    fields = cast("dict[str, Any]", entry)
    dtype, shape, span = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in BITS:
        raise ValueError(f"has tensor '{name}' of dtype {dtype!r}; expected one that safetensors knows, like F32, F16 or BF16")
    if not _are_counts(shape):
        raise ValueError(f"is damaged: tensor '{name}' has shape {shape!r}")
    if not _are_counts(span) or len(span) != 2 or span[0] > span[1]:
        raise ValueError(f"is damaged: tensor '{name}' has data_offsets {span!r}")
    info = TensorInfo(name, dtype, tuple(shape))
    if prod(shape) * BITS[dtype] != (span[1] - span[0]) * 8:
        raise ValueError(f"is damaged: tensor '{name}' of {dtype} {shape} needs {info.nbytes:,} bytes, it has {span[1] - span[0]:,}")
    return span[0], span[1], info


def data_order(tensors: Iterable[TensorInfo]) -> list[TensorInfo]:
    """The order in which tensors lie in a file: widest dtype first, then by name; of equal content, equal bytes."""
    rank = {name: i for i, name in enumerate(BITS)}
    return sorted(tensors, key=lambda info: (rank[info.dtype], info.name))


def build_header(ordered: Iterable[TensorInfo], metadata: Mapping[str, str]) -> bytes:
    """The start of a file up to its data: the length, and the padded JSON. Metadata is sorted by key.

    Raises ValueError for two tensors of one name, TypeError for metadata that is not strings.
    """
    wrong = [key for key, value in metadata.items() if not (isinstance(key, str) and isinstance(value, str))]  # pyright: ignore[reportUnnecessaryIsInstance]
    if wrong:
        raise TypeError(f"metadata must be strings; {wrong[0]!r} is not")
    header: dict[str, Any] = {}
    if metadata:
        header["__metadata__"] = dict(sorted(metadata.items()))
    offset = 0
    for info in ordered:
        if info.name in header or info.name == "__metadata__":
            raise ValueError(f"two tensors would be called '{info.name}'")
        header[info.name] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": [offset, offset + info.nbytes]}
        offset += info.nbytes
    text = _valid_unicode(json.dumps(header, ensure_ascii=False, separators=(",", ":"))).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise ValueError(f"the header would be {len(text):,} bytes long, readers accept {MAX_HEADER:,}: shorten the metadata")
    return len(text).to_bytes(8, "little") + text


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The tensor's elements as they lie in a file: row-major, little-endian."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


def _valid_unicode(text: str) -> str:
    """`text` with lone surrogates, which UTF-8 cannot carry, replaced."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
