"""Maps from a source's channels to a target's, [n_t, n_s], kept in the smallest form and applied without being formed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class ChannelMap(Protocol):
    """A linear map M from the source's channels to the target's."""

    @property
    def sizes(self) -> tuple[int, int]:
        """(n_t, n_s)"""
        ...

    @property
    def identity(self) -> bool:
        """Nothing changes, bit for bit."""
        ...

    def apply(self, rows: Tensor) -> Tensor:
        """``M x`` of x [n_s, …]: [n_t, …]."""
        ...

    def gate(self) -> ChannelMap:
        """The map of the gate that goes with these channels: the same without signs."""
        ...


@dataclass(frozen=True, eq=False)
class Selection:
    """Every target channel is one source channel, with a sign; or none."""

    source: Tensor
    """[n_t], int64; −1 for a target channel without a counterpart"""
    size: int
    """n_s"""
    sign: Tensor | None = None
    """[n_t] of ±1; None: all positive"""

    @property
    def sizes(self) -> tuple[int, int]:
        return self.source.shape[0], self.size

    @property
    def identity(self) -> bool:
        n = self.source.shape[0]
        same = n == self.size and bool((self.source == torch.arange(n, device=self.source.device)).all())
        return same and (self.sign is None or bool((self.sign > 0).all()))

    def apply(self, rows: Tensor) -> Tensor:
        if self.identity:
            return rows
        taken = rows.index_select(0, self.source.clamp_min(0).to(rows.device))
        factor = (self.source >= 0).to(rows)
        if self.sign is not None:
            factor = factor * self.sign.to(rows)
        return taken if bool((factor == 1).all()) else taken * factor.reshape(-1, *[1] * (rows.ndim - 1))

    def gate(self) -> ChannelMap:
        return Selection(self.source, self.size)


def identity(size: int) -> Selection:
    """Nothing changes."""
    return Selection(torch.arange(size), size)


@dataclass(frozen=True, eq=False)
class HeadRotation:
    """Every target head is one source head, rotated."""

    heads: Tensor
    """[h_t], int64: the source head of each target head; −1 for none"""
    blocks: Tensor
    """[h_t, d_t, d_s], semi-orthogonal"""
    size: int
    """n_s"""

    @property
    def sizes(self) -> tuple[int, int]:
        return self.blocks.shape[0] * self.blocks.shape[1], self.size

    @property
    def identity(self) -> bool:
        return False

    def apply(self, rows: Tensor) -> Tensor:
        taken = rows.reshape(-1, self.blocks.shape[2], rows[0].numel())[self.heads.clamp_min(0).to(rows.device)]
        turned = self.blocks.to(rows) @ taken * (self.heads >= 0).to(rows)[:, None, None]
        return turned.reshape(self.sizes[0], *rows.shape[1:])

    def gate(self) -> ChannelMap:
        return self


@dataclass(frozen=True, eq=False)
class Dense:
    """Any matrix."""

    matrix: Tensor
    """[n_t, n_s]"""

    @property
    def sizes(self) -> tuple[int, int]:
        return self.matrix.shape[0], self.matrix.shape[1]

    @property
    def identity(self) -> bool:
        return False

    def apply(self, rows: Tensor) -> Tensor:
        return torch.tensordot(self.matrix.to(rows), rows, dims=1)

    def gate(self) -> ChannelMap:
        return self


def map_rows(weight: Tensor, out: ChannelMap, gated: bool) -> Tensor:
    """``M_out W`` of W [out_s, …]. gated: the rows are [linear half; gate]."""
    if not gated:
        return out.apply(weight)
    if out.identity:
        return weight
    half = weight.shape[0] // 2
    return torch.cat([out.apply(weight[:half]), out.gate().apply(weight[half:])])


def map_columns(weight: Tensor, inputs: Sequence[ChannelMap]) -> Tensor:
    """``W M_inᵀ`` of W [out, in_s, kh·kw], the same for each kernel position; the inputs are concatenated."""
    if all(m.identity for m in inputs):
        return weight
    columns = weight.transpose(0, 1)
    parts = columns.split([m.sizes[1] for m in inputs])
    return torch.cat([m.apply(part) for m, part in zip(inputs, parts, strict=True)]).transpose(0, 1)
