"""OFT in blocks, and butterfly OFT: the output side of the base weight turned by orthogonal blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lorax.adapter.base import AdapterModule, require, shapes, source_matrix


@dataclass(frozen=True, eq=False)
class Rotation(AdapterModule):
    """``ΔW = rescale · R W − W``.

    R comes from skew-symmetric blocks by Cayley's transform, ``(I + Q)(I − Q)⁻¹`` with ``Q = B − Bᵀ`` (OFT, arXiv 2306.07280).
    Three dimensions: R is block-diagonal, and acts transposed, as kohya and LyCORIS have it. Four: a product of butterfly
    stages (BOFT, arXiv 2311.06243), stage i mixing rows at distance 2^i · s/2.
    """

    kind: ClassVar[str] = "oft"
    needs_base: ClassVar[bool] = True
    blocks: Tensor
    """[n, s, s] or [m, n, s, s], with n · s = out"""
    constraint: float = 0.0
    """The file's alpha: the norm of all Q together is at most alpha · out; 0 for no limit."""
    rescale: Tensor | None = None
    """[out, 1, …]"""
    direct: bool = False
    """The blocks are R itself (LyCORIS' old ``oft_diag``)."""

    def __post_init__(self) -> None:
        said = shapes(oft_blocks=self.blocks, rescale=self.rescale)
        square = self.blocks.ndim in (3, 4) and self.blocks.shape[-1] == self.blocks.shape[-2] and self.blocks.numel() > 0
        require(square, f"OFT blocks are [n, s, s] or [m, n, s, s], not {said}.")
        require(self.rescale is None or self.rescale.numel() == self.shape[0], f"rescale has one number per output row: {said}.")
        if self.blocks.ndim == 4:
            half, stages = self.blocks.shape[-1] // 2, self.blocks.shape[0]
            fits = self.blocks.shape[-1] % 2 == 0 and self.shape[0] % (2**stages * half) == 0
            require(fits, f"The butterfly stages do not fit {self.shape[0]} rows: {said}.")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.blocks.shape[-3] * self.blocks.shape[-1], 0

    def _turns(self) -> Tensor:
        """R of every block, [n, s, s] or [m, n, s, s]."""
        blocks = self.blocks.float()
        if self.direct:
            return blocks
        q = blocks - blocks.transpose(-1, -2)
        limit, norm = self.constraint * self.shape[0], float(q.norm()) + 1e-8
        if 0 < limit < norm:
            q = q * (limit / norm)
        eye = torch.eye(q.shape[-1], device=q.device)
        return torch.linalg.solve(eye - q, eye + q)  # (I + Q) and (I − Q)⁻¹ commute

    def delta(self, base: Tensor | None = None) -> Tensor:
        source = source_matrix(self, base)
        turns = self._turns().to(source.device)
        turned = _turn_blocks(turns, source) if turns.ndim == 3 else _turn_butterfly(turns, source)
        if self.rescale is not None:
            turned = turned * self.rescale.float().reshape(-1, 1).to(source.device)
        return turned - source


def _turn_blocks(turns: Tensor, matrix: Tensor) -> Tensor:
    n, s, _ = turns.shape
    return (turns.transpose(1, 2) @ matrix.reshape(n, s, -1)).flatten(0, 1)


def _turn_butterfly(turns: Tensor, matrix: Tensor) -> Tensor:
    columns = matrix.shape[1]
    for i, stage in enumerate(turns):
        n, s, _ = stage.shape
        distance = 2**i * (s // 2)
        paired = matrix.reshape(-1, 2, distance, columns).transpose(1, 2)
        turned = stage @ paired.reshape(n, s, columns)
        matrix = turned.reshape(-1, distance, 2, columns).transpose(1, 2).reshape(-1, columns)
    return matrix
