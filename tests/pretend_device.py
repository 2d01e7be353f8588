"""A device that is none: it computes on the CPU, but keeps its tensors apart as a GPU does, and lacks what Apple's MPS lacks."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from lorax import device, workers

MISSING = ("linalg_eigh", "linalg_qr", "linalg_svd", "linalg_cholesky", "linalg_lstsq")
"""Operations that the device has not."""


class Elsewhere(Tensor):
    """A tensor on the device; what it holds lies on the CPU."""

    there: torch.device
    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor, there: torch.device) -> Elsewhere:
        if held.dtype == torch.float64 and there.type == "mps":
            raise TypeError("MPS has no float64")
        made = Tensor._make_wrapper_subclass(cls, held.shape, strides=held.stride(), dtype=held.dtype, device="meta", dispatch_device=True)
        made.held, made.there = held, there
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return dispatch(func, args, kwargs or {})

    # these of torch's bindings ask for a guard of the device, which only a real one has

    def __getitem__(self, index):
        return Elsewhere(self.held[tree_map(held, index)], self.there)

    def __setitem__(self, index, value):
        require_one_device("setitem", [self, value])
        self.held[tree_map(held, index)] = held(value)

    def nonzero(self):
        return Elsewhere(self.held.nonzero(), self.there)


for _name in ("__float__", "__int__", "__bool__", "__index__", "item", "tolist", "cpu"):
    setattr(Elsewhere, _name, lambda self, _name=_name: getattr(self.held, _name)())


def held(value):
    return value.held if isinstance(value, Elsewhere) else value


def require_one_device(name: str, values: list) -> None:
    """A number may lie anywhere, all else on one device."""
    tensors = [v for v in values if isinstance(v, Tensor) and v.dim()]
    if len({isinstance(t, Elsewhere) for t in tensors}) > 1:
        raise RuntimeError(f"{name}: expected all tensors to be on the same device")


def dispatch(func, args, kwargs):
    """An operation on the device, or one that brings something there or back."""
    leaves = tree_leaves((args, kwargs))
    there = next((v.there for v in leaves if isinstance(v, Elsewhere)), None)
    if func is torch.ops.prim.device.default:
        return there
    name = func.name().removeprefix("aten::")
    if "copy" not in name:
        require_one_device(name, leaves)
    if there is not None and name.lstrip("_").startswith(MISSING):
        raise NotImplementedError(f"The operator 'aten::{name}' is not currently implemented for the {there.type} device.")
    if (asked := kwargs.get("device")) is not None:
        there = None if asked.type in ("cpu", "meta") else asked
        kwargs = {**kwargs, "device": asked if there is None else torch.device("cpu")}
    found = func(*tree_map(held, args), **tree_map(held, kwargs))
    if there is None:
        return found
    return tree_map(lambda v: Elsewhere(v, there) if type(v) is Tensor else v, found)


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return dispatch(func, args, kwargs or {})


class _Pool(ThreadPoolExecutor):
    """Modes belong to a thread."""

    def submit(self, work, *args):
        def inside():
            with _Mode():
                return work(*args)

        return super().submit(inside)


@contextmanager
def pretended(kind: str, monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """One device of a kind (``cuda``, ``mps``, ``xpu``) is there, inside the block. Name it with its index, as ``cuda:0``: torch asks
    the real device for one that is left out."""
    monkeypatch.setattr(device, "number_of", lambda k: int(k in (kind, "cpu")))
    monkeypatch.setattr(workers, "ThreadPoolExecutor", _Pool)
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.xpu, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.xpu, "get_device_properties", lambda _: type("Arc", (), {"has_fp64": False}))
    with _Mode():
        yield
