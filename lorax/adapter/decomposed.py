"""DoRA: a delta and a learned magnitude per row or per input channel (arXiv 2402.09353)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lorax.adapter.base import AdapterModule, require, shapes, source_matrix


@dataclass(frozen=True, eq=False)
class Decomposed(AdapterModule):
    """``W' = (W + ΔW) · m / ‖W + ΔW‖`` and hence ``ΔW' = W' − W``; the norm is per output row or per input channel.

    The shape of the magnitude tells the axis: [out, 1, …] is per row (LyCORIS since 3.1, PEFT), [1, in, …] is per input
    channel, over rows and kernel (LyCORIS before; the only one that A1111 knows).
    """

    kind: ClassVar[str] = "dora"
    needs_base: ClassVar[bool] = True
    inner: AdapterModule
    magnitude: Tensor
    """[out, 1, …] or [1, in, …]"""

    def __post_init__(self) -> None:
        out, columns = self.inner.matrix_shape
        n, said = self.magnitude.numel(), shapes(dora_scale=self.magnitude)
        require(self.magnitude.ndim >= 2, f"dora_scale is [out, 1, …] or [1, in, …], not {said}.")
        by_row = self.magnitude.shape[0] == n == out
        by_input = self.magnitude.shape[1] == n and columns % n == 0 and (len(self.inner.shape) == 2 or n == self.inner.shape[1])
        require(by_row or by_input, f"The magnitudes do not fit a weight of {list(self.inner.shape)}: {said}.")

    @property
    def on_output(self) -> bool:
        """The norm is taken per output row, not per input channel."""
        return self.magnitude.shape[0] == self.magnitude.numel() == self.inner.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.inner.shape

    @property
    def rank(self) -> int | None:
        return self.inner.rank

    def delta(self, base: Tensor | None = None) -> Tensor:
        source = source_matrix(self, base)
        weight = source + self.inner.delta(base).to(source.device)
        out, columns = weight.shape
        magnitude = self.magnitude.float().flatten().to(source.device)
        if self.on_output:
            grouped, axes, scale = weight, (1,), magnitude[:, None]
        else:
            grouped = weight.reshape(out, magnitude.numel(), -1)
            axes, scale = (0, 2), magnitude[None, :, None]
        norm = torch.linalg.vector_norm(grouped, dim=axes, keepdim=True) + torch.finfo(torch.float32).eps
        return (grouped * (scale / norm)).reshape(out, columns) - source
