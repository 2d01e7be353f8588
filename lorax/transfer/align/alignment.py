"""The maps of two models' channel spaces, and how a delta or a weight is carried by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from lorax.layers import Component, LayerId
from lorax.linalg import Factors
from lorax.transfer.align.assign import Fit
from lorax.transfer.align.links import Link, Pair
from lorax.transfer.align.maps import ChannelMap, map_columns, map_rows


@dataclass(frozen=True, eq=False)
class Alignment:
    """Small values from whole-model passes over both bases: one map for each pair of channel spaces."""

    maps: Mapping[Pair, ChannelMap]
    fits: Mapping[Pair, Fit]
    """Of the maps that were fitted; those of equal channels are no fit."""
    links: Mapping[LayerId, Link]
    """By target layer."""

    @property
    def identity(self) -> bool:
        """The two models have the same channels in the same order wherever they were matched."""
        return all(m.identity for m in self.maps.values())

    def covers(self, target: LayerId) -> bool:
        """Whether all channels at this target layer have a map."""
        link = self.links.get(target)
        return link is not None and all(pair in self.maps for pair in link.pairs)

    def changes(self, target: LayerId) -> bool:
        """Whether a delta comes out other than it went in."""
        return not all(self.maps[pair].identity for pair in self.links[target].pairs)

    @property
    def agreement(self) -> float | None:
        """Mean agreement above chance of the UNet's fits; None where nothing had to be fitted."""
        found = [fit.above_chance for pair, fit in self.fits.items() if pair[0].component == Component.UNET]
        return sum(found) / len(found) if found else None

    def chance(self, target: LayerId) -> float:
        """ρ₀: the cosine that the fits at this layer would reach on unrelated weights."""
        return max((self.fits[p].chance for p in self.links[target].pairs if p in self.fits), default=0.0)

    def carry(self, target: LayerId, delta: Factors | Tensor) -> Factors | Tensor:
        """``ΔW_t = M_out ΔW_s M_inᵀ``; factors stay factors (``M_out up``, ``down M_inᵀ``), and equal channels change nothing.

        delta: factors, or [out, in·kh·kw]; the result has the target's sizes.
        """
        if isinstance(delta, Factors):
            return Factors(self._rows(target, delta.up), self._columns(target, delta.down))
        return self.carry_matrix(target, delta)

    def carry_matrix(self, target: LayerId, matrix: Tensor) -> Tensor:
        """`carry` of a weight or a dense delta [out, in·kh·kw]."""
        return self._columns(target, self._rows(target, matrix))

    def _rows(self, target: LayerId, matrix: Tensor) -> Tensor:
        link = self.links[target]
        return map_rows(matrix, self.maps[link.out], link.gated)

    def _columns(self, target: LayerId, matrix: Tensor) -> Tensor:
        link = self.links[target]
        inputs = [self.maps[pair] for pair in link.inputs]
        if all(m.identity for m in inputs):
            return matrix
        spread = matrix.reshape(matrix.shape[0], sum(m.sizes[1] for m in inputs), -1)
        return map_columns(spread, inputs).flatten(1)
