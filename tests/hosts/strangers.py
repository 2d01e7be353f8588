"""Adapters that fit no checkpoint of a bench."""

from __future__ import annotations

from pathlib import Path

import torch

from lorax import Factors, write_adapter
from lorax.archs import by_name
from lorax.layers import Component


def write_stranger(path: Path) -> None:
    """An SDXL adapter by its names and its metadata."""
    arch = by_name("sdxl")
    layers = [i for i in arch.specs() if i.component == Component.UNET and i.path.endswith(("to_q", "to_v"))]
    factors = {i: Factors(torch.ones(8, 2), torch.ones(2, 8)) for i in layers}
    write_adapter(path, factors, arch, shapes=dict.fromkeys(layers, (8, 8)), metadata={"ss_base_model_version": "sdxl_base_v1-0"})
