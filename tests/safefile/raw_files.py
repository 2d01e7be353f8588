"""Files made byte by byte, and what the tests ask of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lorax.errors import MalformedFile
from lorax.safefile import open_tensors


def raw_file(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(dtype: object = "F32", shape: object = (1,), offsets: object = (0, 4)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def refused(path: Path) -> str:
    """The message of the refusal, checked for being one line that names the file."""
    with pytest.raises(MalformedFile) as e:
        open_tensors(path)
    message = str(e.value)
    assert path.name in message
    assert "\n" not in message
    return message


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.contiguous().reshape(-1).view(torch.uint8).equal(b.reshape(-1).view(torch.uint8))
