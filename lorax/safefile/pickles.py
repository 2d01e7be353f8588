"""PyTorch pickles (``.ckpt``, ``.pt``, ``.bin``), read without running what they may contain."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from lorax.errors import FileError, MalformedFile, UnsafeFile, one_line
from lorax.header import DTYPE_NAMES, TensorInfo
from lorax.safefile.read import Rows, find_tensor, open_binary

WAY_OUT = "convert it to .safetensors with a program that you trust, and give that file"


class PickleFile:
    """A pickle of tensors, by ``torch.load(weights_only=True)``; zip files are mapped, so only what is read takes memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata: Mapping[str, str] = {}
        content = _unwrap(path, _load(path))
        self._content = {name: value.detach() for name, value in content.items() if isinstance(value, Tensor)}
        self.ignored = tuple(name for name in content if name not in self._content)
        if not self._content:
            raise MalformedFile(one_line(f"'{path}' is a pickle without tensors; a state dict was expected."))
        self.tensors: Mapping[str, TensorInfo] = {name: _info(path, name, t) for name, t in self._content.items()}

    def read(self, name: str, rows: Rows | None = None) -> Tensor:
        find_tensor(self.path, self.tensors, name)
        tensor = self._content[name] if rows is None else self._content[name][slice(*rows)]
        return tensor.clone(memory_format=torch.contiguous_format)

    def close(self) -> None:
        self._content = {}

    def __enter__(self) -> PickleFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _info(path: Path, name: str, tensor: Tensor) -> TensorInfo:
    if tensor.dtype not in DTYPE_NAMES or tensor.layout != torch.strided or tensor.device.type != "cpu":
        raise MalformedFile(one_line(f"'{path}': tensor '{name}' ({tensor.dtype}, {tensor.layout}) is not read; {WAY_OUT}."))
    return TensorInfo(name, DTYPE_NAMES[tensor.dtype], tuple(tensor.shape))


def _unwrap(path: Path, content: object) -> dict[str, Any]:
    """The state dict: the pickle itself, or what it keeps under ``state_dict``."""
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        rest = {str(k): None for k in content if k != "state_dict"}
        return {**rest, **{str(k): v for k, v in content["state_dict"].items()}}
    if not isinstance(content, Mapping):
        raise MalformedFile(one_line(f"'{path}' is a pickle of a {type(content).__name__}; a state dict (names to tensors) was expected."))
    return {str(k): v for k, v in cast("Mapping[Any, Any]", content).items()}


def _load(path: Path) -> object:
    options: dict[str, Any] = {"map_location": "cpu", "weights_only": True}
    try:
        with open_binary(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of old storage types
            # torch goes by the name where it gets one; a misnamed pickle is read whole.
            if file.peek(4)[:4] == b"PK\x03\x04" and path.suffix.lower() != ".safetensors":
                return torch.load(str(path), mmap=True, **options)
            return torch.load(file, **options)
    except pickle.UnpicklingError as e:
        raise _refusal(path, str(e)) from None
    except FileError:
        raise
    except Exception as e:
        kind = type(e).__name__
        raise MalformedFile(one_line(f"'{path}' is no readable PyTorch pickle ({kind}): download it again, or {WAY_OUT}.")) from None


def _refusal(path: Path, message: str) -> FileError:
    """UnsafeFile naming what the pickle would call, or MalformedFile where torch could not parse it."""
    found = re.search(r"GLOBAL ([\w.]+)|Unsupported class ([\w.]+)", message)
    if found is None and "Unsupported" not in message:
        return MalformedFile(one_line(f"'{path}' is a damaged PyTorch pickle; download it again, or {WAY_OUT}."))
    name = f" ({found[1] or found[2]})" if found else ""
    return UnsafeFile(one_line(f"'{path}' is a pickle that holds more than tensors{name}, which could run code: {WAY_OUT}."))
