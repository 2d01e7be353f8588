"""LoHa and LoKr: element-wise and Kronecker products of low-rank matrices (LyCORIS, arXiv 2309.14859)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lorax.adapter.base import AdapterModule, if_smaller, require, shapes
from lorax.adapter.low_rank import core_times
from lorax.linalg import Factors, flatten_weight


@dataclass(frozen=True, eq=False)
class Hadamard(AdapterModule):
    """LoHa: ``ΔW = scale · (w1_a w1_b) ⊙ (w2_a w2_b)``.

    With Tucker cores t1, t2 [r, r, kh, kw] the left factors are stored transposed, [r, out], and each half is
    ``w_aᵀ ×₁ t ×₂ w_b``.
    """

    kind: ClassVar[str] = "loha"
    w1_a: Tensor
    """[out, r]; [r, out] with a core"""
    w1_b: Tensor
    """[r, in·kh·kw]; [r, in] with a core"""
    w2_a: Tensor
    w2_b: Tensor
    scale: float = 1.0
    t1: Tensor | None = None
    t2: Tensor | None = None

    def __post_init__(self) -> None:
        said = shapes(w1_a=self.w1_a, w1_b=self.w1_b, w2_a=self.w2_a, w2_b=self.w2_b, t1=self.t1, t2=self.t2)
        parts = (self.w1_a, self.w1_b, self.w2_a, self.w2_b)
        require(all(p.ndim == 2 for p in parts), f"LoHa factors are matrices, not {said}.")
        require(all(p.numel() > 0 for p in parts), f"The rank is zero: {said}.")
        require((self.t1 is None) == (self.t2 is None), f"LoHa has two Tucker cores or none: {said}.")
        for a, b, t in ((self.w1_a, self.w1_b, self.t1), (self.w2_a, self.w2_b, self.t2)):
            ranks = (a.shape[1], b.shape[0]) if t is None else (a.shape[0], b.shape[0])
            cored = t is None or (t.ndim == 4 and tuple(t.shape[:2]) == ranks)
            require(cored and (t is not None or ranks[0] == ranks[1]), f"The ranks of the LoHa factors disagree: {said}.")
        one, two = self._halves_shapes()
        require(one == two, f"The halves of the LoHa product have other shapes: {said}.")

    def _halves_shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        def half(a: Tensor, b: Tensor, t: Tensor | None) -> tuple[int, ...]:
            return (a.shape[0], b.shape[1]) if t is None else (a.shape[1], b.shape[1], *t.shape[2:])

        return half(self.w1_a, self.w1_b, self.t1), half(self.w2_a, self.w2_b, self.t2)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._halves_shapes()[0]

    @property
    def rank(self) -> int:
        return self.w1_b.shape[0]

    def _half(self, a: Tensor, b: Tensor, t: Tensor | None) -> Factors:
        return Factors(a.float(), b.float()) if t is None else Factors(a.float().T, core_times(t, b.float()))

    def _halves(self) -> tuple[Factors, Factors]:
        return self._half(self.w1_a, self.w1_b, self.t1), self._half(self.w2_a, self.w2_b, self.t2)

    def delta(self, base: Tensor | None = None) -> Tensor:
        one, two = self._halves()
        return one.dense().mul_(two.dense()).mul_(self.scale)

    def factors(self) -> Factors | None:
        """``(A B) ⊙ (C D)`` has rank r²: row-wise and column-wise Khatri–Rao products of the factors."""
        one, two = self._halves()
        out, columns = one.shape
        if one.rank * two.rank * (out + columns) >= out * columns:
            return None
        up = (one.up[:, :, None] * two.up[:, None, :]).flatten(1)
        down = (one.down[:, None, :] * two.down[None, :, :]).flatten(0, 1)
        return Factors(up * self.scale, down)


@dataclass(frozen=True, eq=False)
class Kronecker(AdapterModule):
    """LoKr: ``ΔW = scale · w1 ⊗ w2``, either side whole or as ``a @ b``, w2 of a convolution also with a Tucker core.

    Flattening commutes with the product: the columns of w1 ⊗ w2 are ordered (w1's, w2's, kernel) either way.
    """

    kind: ClassVar[str] = "lokr"
    w1: Tensor | tuple[Tensor, Tensor]
    """[a, b], or [a, r] and [r, b]"""
    w2: Tensor | tuple[Tensor, Tensor]
    """[c, d] or [c, d, kh, kw]; or [c, r] and [r, d·kh·kw] or [r, d, kh, kw]; with a core [r, c] and [r, d]"""
    scale: float = 1.0
    t2: Tensor | None = None
    """Tucker core [r, r, kh, kw] of w2"""

    def __post_init__(self) -> None:
        parts = [*_parts(self.w1), *_parts(self.w2)]
        said = ", ".join(str(list(p.shape)) for p in parts) + (f" and core {list(self.t2.shape)}" if self.t2 is not None else "")
        require(all(p.ndim in (2, 4) and p.numel() > 0 for p in parts), f"LoKr factors are weights, not {said}.")
        require(all(p.ndim == 2 for p in _parts(self.w1)), f"lokr_w1 is a matrix: {said}.")
        if isinstance(self.w1, tuple):
            require(self.w1[0].shape[1] == self.w1[1].shape[0], f"The ranks of the LoKr factors disagree: {said}.")
        if self.t2 is not None:
            cored = isinstance(self.w2, tuple) and self.t2.ndim == 4
            fits = cored and tuple(self.t2.shape[:2]) == (self.w2[0].shape[0], self.w2[1].shape[0])
            require(fits, f"The Tucker core does not fit its factors: {said}.")
        elif isinstance(self.w2, tuple):
            require(self.w2[0].shape[1] == self.w2[1].shape[0], f"The ranks of the LoKr factors disagree: {said}.")

    @property
    def shape(self) -> tuple[int, ...]:
        a, b = (self.w1.shape[0], self.w1.shape[1]) if isinstance(self.w1, Tensor) else (self.w1[0].shape[0], self.w1[1].shape[1])
        if isinstance(self.w2, Tensor):
            return a * self.w2.shape[0], b * self.w2.shape[1], *self.w2.shape[2:]
        left, right = self.w2
        if self.t2 is not None:
            return a * left.shape[1], b * right.shape[1], *self.t2.shape[2:]
        return a * left.shape[0], b * right.shape[1], *right.shape[2:]

    @property
    def rank(self) -> int | None:
        """r of the side that is stored as factors; None where both are whole."""
        for side in (self.w2, self.w1):
            if isinstance(side, tuple):
                return side[1].shape[0]
        return None

    def _left(self) -> Factors:
        if isinstance(self.w1, tuple):
            return Factors(self.w1[0].float(), self.w1[1].float())
        return _split(self.w1.float())

    def _right(self) -> Factors:
        if isinstance(self.w2, Tensor):
            return _split(flatten_weight(self.w2).float())
        a, b = self.w2
        if self.t2 is not None:
            return Factors(a.float().T, core_times(self.t2, b.float()))
        return Factors(flatten_weight(a).float(), flatten_weight(b).float())

    def delta(self, base: Tensor | None = None) -> Tensor:
        return _kron(self._left().dense(), self._right().dense()) * self.scale

    def factors(self) -> Factors | None:
        """``(P Q) ⊗ (R S) = (P ⊗ R)(Q ⊗ S)``: rank is the product of the two ranks."""
        left, right = self._left(), self._right()
        out, columns = self.matrix_shape
        if left.rank * right.rank * (out + columns) >= out * columns:
            return None
        return if_smaller(Factors(_kron(left.up, right.up) * self.scale, _kron(left.down, right.down)))


def _parts(side: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    return (side,) if isinstance(side, Tensor) else side


def _kron(a: Tensor, b: Tensor) -> Tensor:
    """a ⊗ b of two matrices; `torch.kron` fails on a transposed vector."""
    return (a[:, None, :, None] * b[None, :, None, :]).reshape(a.shape[0] * b.shape[0], -1)


def _split(matrix: Tensor) -> Factors:
    """A matrix as exact factors whose rank is its shorter side: identity times matrix, or matrix times identity."""
    rows, columns = matrix.shape
    if rows <= columns:
        return Factors(torch.eye(rows, device=matrix.device), matrix)
    return Factors(matrix, torch.eye(columns, device=matrix.device))
