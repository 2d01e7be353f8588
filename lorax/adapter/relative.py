"""GLoRA and IA3: deltas that are linear in the base weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lorax.adapter.base import AdapterModule, require, shapes, source_matrix
from lorax.adapter.low_rank import core_times
from lorax.linalg import flatten_weight


@dataclass(frozen=True, eq=False)
class Generalized(AdapterModule):
    """GLoRA: ``ΔW = scale · (W a1 a2 + b1 b2)`` (arXiv 2306.07967; LyCORIS' ``glora``), a1 a2 acting on input channels."""

    kind: ClassVar[str] = "glora"
    needs_base: ClassVar[bool] = True
    a1: Tensor
    """[in, r], or [in, r, 1, 1]"""
    a2: Tensor
    """[r, in], or [r, in, 1, 1]"""
    b1: Tensor
    """[out, r], or [out, r, 1, 1]"""
    b2: Tensor
    """[r, in] or [r, in, kh, kw]"""
    scale: float = 1.0
    bm: Tensor | None = None
    """Tucker core [r, r, kh, kw]"""

    def __post_init__(self) -> None:
        said = shapes(a1=self.a1, a2=self.a2, b1=self.b1, b2=self.b2, bm=self.bm)
        parts = (self.a1, self.a2, self.b1, self.b2)
        require(all(p.ndim in (2, 4) and p.numel() > 0 for p in parts), f"GLoRA factors have 2 or 4 dimensions: {said}.")
        require(all(p[0].numel() == p.shape[1] for p in (self.a1, self.a2, self.b1)), f"a1, a2 and b1 have no kernel: {said}.")
        chained = self.a1.shape[1] == self.a2.shape[0] and self.a1.shape[0] == self.a2.shape[1] == self.b2.shape[1]
        cored = self.bm is None and self.b1.shape[1] == self.b2.shape[0]
        if self.bm is not None:
            cored = self.bm.ndim == 4 and tuple(self.bm.shape[:2]) == (self.b1.shape[1], self.b2.shape[0])
        require(chained and cored, f"The GLoRA factors do not fit each other: {said}.")

    @property
    def shape(self) -> tuple[int, ...]:
        tail = self.b2.shape[2:] if self.bm is None else self.bm.shape[2:]
        return self.b1.shape[0], self.b2.shape[1], *tail

    @property
    def rank(self) -> int:
        return self.b1.shape[1]

    def delta(self, base: Tensor | None = None) -> Tensor:
        source = source_matrix(self, base)
        channels = self.a1.shape[0]
        spatial = source.reshape(source.shape[0], channels, -1).transpose(1, 2)
        a1, a2, b1, b2 = (flatten_weight(t).float().to(source.device) for t in (self.a1, self.a2, self.b1, self.b2))
        down = b2 if self.bm is None else core_times(self.bm.to(source.device), b2)
        return ((spatial @ a1 @ a2).transpose(1, 2).flatten(1) + b1 @ down) * self.scale


@dataclass(frozen=True, eq=False)
class Scaling(AdapterModule):
    """IA3: ``ΔW = W · w`` per input or per output channel (arXiv 2205.05638; LyCORIS' ``ia3``).

    The file tells one side of the weight only.
    """

    kind: ClassVar[str] = "ia3"
    needs_base: ClassVar[bool] = True
    weight: Tensor
    """[channels], or [1, channels, 1, 1] for a convolution"""
    on_input: bool

    def __post_init__(self) -> None:
        n = self.weight.numel()
        require(n > 0 and n in self.weight.shape, f"An IA3 weight has one number per channel, not {shapes(weight=self.weight)}.")

    @property
    def shape(self) -> tuple[int, ...]:
        return (0, 0) if self.on_input else (self.weight.numel(), 0)

    def delta(self, base: Tensor | None = None) -> Tensor:
        source = source_matrix(self, base)
        scale = self.weight.float().flatten().to(source.device)
        if not self.on_input:
            return source * scale[:, None]
        require(
            source.shape[1] % scale.numel() == 0, f"The IA3 weight has {scale.numel()} channels, the base's weight is {list(source.shape)}."
        )
        return (source.reshape(source.shape[0], scale.numel(), -1) * scale[None, :, None]).flatten(1)
