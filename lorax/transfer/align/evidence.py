"""What the layers on both sides of a pair of spaces say about which channel is which."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(eq=False)
class Evidence:
    """Sums of inner products between every target channel's and every source channel's weights."""

    sizes: tuple[int, int]
    """(n_t, n_s)"""
    plain: Tensor | None = None
    """[n_t, n_s]; of a gated space the gate's rows"""
    signed: Tensor | None = None
    """[n_t, n_s]: of a gated space's linear half, whose sign is free"""
    norms: list[tuple[Tensor, Tensor]] = field(default_factory=list[tuple[Tensor, Tensor]])
    """Norms of the channels that were compared: [n_t] and [n_s] for each contribution"""

    def __bool__(self) -> bool:
        return bool(self.norms)

    def add(self, target: Tensor, source: Tensor, signed: bool = False) -> None:
        """Compare [n_t, m] with [n_s, m], the same m quantities of every channel."""
        product = target @ source.T
        if signed:
            self.signed = product if self.signed is None else self.signed.add_(product)
        else:
            self.plain = product if self.plain is None else self.plain.add_(product)
        self.norms.append((target.norm(dim=1), source.norm(dim=1)))

    def total(self) -> Tensor:
        """[n_t, n_s]: the score of each pairing."""
        if self.signed is None:
            assert self.plain is not None
            return self.plain
        return self.signed.abs() if self.plain is None else self.plain + self.signed.abs()

    def bound(self) -> Tensor:
        """[n_t, n_s]: the largest score that norms allow (Cauchy–Schwarz)."""
        return torch.stack([t for t, _ in self.norms], 1) @ torch.stack([s for _, s in self.norms])

    def head_bound(self, width_t: int, width_s: int) -> Tensor:
        """[h_t, h_s]: the same for heads, whose channels may be rotated."""

        def heads(norms: list[Tensor], width: int) -> Tensor:
            return torch.stack(norms).square().unflatten(1, (-1, width)).sum(-1).sqrt()

        return heads([t for t, _ in self.norms], width_t).T @ heads([s for _, s in self.norms], width_s)
