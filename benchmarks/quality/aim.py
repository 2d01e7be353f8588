"""What distillation learns from, asked of the networks themselves: what a student that learned all of it would predict.

A student that learns it in part does less, and where the whole is too much (another domain) that recovers more of the loss.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor

from benchmarks.quality.adapters import Deltas, add

AIM = "aim"
"""The column's name."""


class Aim:
    """``target + (source with the adapter − source)``, called as a diffusers UNet is with ``return_dict=False``."""

    def __init__(self, target: Any, source: Any, deltas: Deltas) -> None:
        """deltas: of the adapter on the source."""
        self._target, self._plain, self._adapted = target, source, copy.deepcopy(source)
        add(self._adapted, deltas)

    def __call__(self, *asked: Any, **more: Any) -> tuple[Tensor]:
        target, adapted, plain = (unet(*asked, **more)[0] for unet in (self._target, self._adapted, self._plain))
        return (target + adapted - plain,)
