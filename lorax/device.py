"""Where tensors are computed."""

from __future__ import annotations

import torch

from lorax.errors import LoraxError


def resolve_device(name: str) -> torch.device:
    """``auto`` (CUDA where there is one, else CPU), ``cpu``, ``cuda`` or ``cuda:N``, checked against what this machine has."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise LoraxError(f"unknown device '{name}': expected auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise LoraxError(f"the device '{name}' is not there: torch sees {torch.cuda.device_count()} CUDA devices; use --device cpu")
    return device
