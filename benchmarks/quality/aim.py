"""What distillation learns from, asked of the networks themselves: nothing that it trains can be expected to do better."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from benchmarks.quality.adapters import Deltas

AIM = "aim"
"""The column's name."""


class Aim:
    """``target + (source with the adapter − source)``, called as a diffusers UNet is with ``return_dict=False``."""

    def __init__(self, target: Any, source: Any, deltas: Deltas) -> None:
        """deltas: of the adapter on the source."""
        self._target, self._plain, self._adapted = target, source, copy.deepcopy(source)
        with torch.no_grad():
            for i, delta in deltas.items():
                weight = self._adapted.get_submodule(i.path).weight
                weight.add_(delta.reshape(weight.shape))

    def __call__(self, *asked: Any, **more: Any) -> tuple[Tensor]:
        target, adapted, plain = (unet(*asked, **more)[0] for unet in (self._target, self._adapted, self._plain))
        return (target + adapted - plain,)
