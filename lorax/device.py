"""Where tensors are computed."""

from __future__ import annotations

import torch

from lorax.errors import LoraxError

KINDS = ("cpu", "cuda", "xpu", "mps")
"""CUDA is also what torch calls an AMD GPU under ROCm; XPU is Intel's, MPS Apple's."""
DEVICE_NAMES = "auto, cpu, cuda, cuda:N, xpu, xpu:N or mps"


def resolve_device(name: str) -> torch.device:
    """``auto`` (CUDA where there is one, else CPU) or a device by name (`DEVICE_NAMES`), checked against what this machine has."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in KINDS:
        raise LoraxError(f"unknown device '{name}': expected {DEVICE_NAMES}")
    if (device.index or 0) >= number_of(device.type):
        kind = device.type.upper()
        raise LoraxError(f"the device '{name}' is not there: torch sees {number_of(device.type)} {kind} devices; use --device cpu")
    return device


def number_of(kind: str) -> int:
    """How many devices of a kind torch sees."""
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    if kind == "xpu":  # torch 2.1 has no such module
        return torch.xpu.device_count() if hasattr(torch, "xpu") else 0
    return torch.cuda.device_count() if kind == "cuda" else 1


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device had no room. CUDA and XPU have a class for it, MPS only words."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or "out of memory" in str(error)


def free_unused(device: torch.device) -> None:
    """Give back what torch keeps of the device's memory for later."""
    if device.type != "cpu":
        getattr(torch, device.type).empty_cache()
