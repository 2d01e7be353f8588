"""LoRA, LoCon with and without Tucker core, and plain differences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lorax.adapter.base import AdapterModule, require, shapes
from lorax.linalg import Factors, flatten_weight


@dataclass(frozen=True, eq=False)
class LowRank(AdapterModule):
    """``ΔW = scale · up @ down`` (LoRA, arXiv 2106.09685); with a Tucker core ``scale · up ×₁ mid ×₂ down`` (LyCORIS' LoCon)."""

    kind: ClassVar[str] = "lora"
    up: Tensor
    """[out, r] or [out, r, 1, 1]"""
    down: Tensor
    """[r, in] or [r, in, kh, kw]; [r, in] or [r, in, 1, 1] with a Tucker core"""
    scale: float = 1.0
    """alpha / r"""
    mid: Tensor | None = None
    """Tucker core [r, r, kh, kw]"""

    def __post_init__(self) -> None:
        said = shapes(lora_up=self.up, lora_down=self.down, lora_mid=self.mid)
        require(self.up.ndim in (2, 4) and self.down.ndim in (2, 4), f"Low-rank factors have 2 or 4 dimensions, not {said}.")
        require(0 not in (*self.up.shape, *self.down.shape), f"The rank is zero: {said}.")
        require(self.up[0].numel() == self.up.shape[1], f"lora_up is [out, r] or [out, r, 1, 1], not {said}.")
        if self.mid is None:
            require(self.up.shape[1] == self.down.shape[0], f"The ranks of lora_up and lora_down disagree: {said}.")
            return
        fits = self.mid.ndim == 4 and tuple(self.mid.shape[:2]) == (self.up.shape[1], self.down.shape[0])
        require(fits and self.down[0].numel() == self.down.shape[1], f"The Tucker core does not fit its factors: {said}.")

    @property
    def shape(self) -> tuple[int, ...]:
        tail = self.down.shape[2:] if self.mid is None else self.mid.shape[2:]
        return self.up.shape[0], self.down.shape[1], *tail

    @property
    def rank(self) -> int:
        return self.up.shape[1]

    def delta(self, base: Tensor | None = None) -> Tensor:
        return self.factors().dense()

    def factors(self) -> Factors:
        """Always exact, also where r is too large for the factors to be smaller than the matrix."""
        up, down = flatten_weight(self.up).float(), flatten_weight(self.down).float()
        return Factors(up if self.scale == 1.0 else up * self.scale, down if self.mid is None else core_times(self.mid, down))

    def stored(self) -> tuple[Tensor, Tensor] | None:
        """The factors of `factors` in the file's own tensors and dtype, where these are the same numbers."""
        plain = self.scale == 1.0 and self.mid is None
        return (flatten_weight(self.up), flatten_weight(self.down)) if plain else None


def core_times(core: Tensor, right: Tensor) -> Tensor:
    """A Tucker core [r, s, kh, kw] times its right factor [s, in]: [r, in·kh·kw]."""
    ranks = core.flatten(2).float()
    return (ranks.transpose(1, 2) @ right).transpose(1, 2).flatten(1)


@dataclass(frozen=True, eq=False)
class Dense(AdapterModule):
    """``ΔW = scale · diff``: a full difference (LyCORIS' ``full``, kohya's and ComfyUI's ``diff``)."""

    kind: ClassVar[str] = "full"
    diff: Tensor
    """[out, in] or [out, in, kh, kw]"""
    scale: float = 1.0

    def __post_init__(self) -> None:
        require(self.diff.ndim in (2, 4) and self.diff.numel() > 0, f"A full difference is a weight, not {shapes(diff=self.diff)}.")

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.diff.shape)

    def delta(self, base: Tensor | None = None) -> Tensor:
        return flatten_weight(self.diff).float() * self.scale
