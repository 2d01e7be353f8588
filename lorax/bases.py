"""Spans and bases of base weights, from the cache where they were computed before.

The key is the weight's content, the rank and the algorithm's version: the result does not depend on what the cache held.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from lorax.cache import Cache
from lorax.digest import tensor_digest
from lorax.spectral import Span, SpectralBasis, compute_basis, compute_span

VERSION = "1"
"""Of the algorithms in `lorax.spectral`: raise it when their results change."""


@dataclass(frozen=True)
class Bases:
    """Computes what is asked for, on the device of the weight, and remembers it in `cache` (None: nowhere)."""

    cache: Cache | None = None

    def span(self, weight: Tensor, k: int) -> Span:
        """`lorax.spectral.compute_span`; weight: [out, in], fp32."""
        if self.cache is None or k >= max(weight.shape):
            return compute_span(weight, k)

        def compute() -> Mapping[str, Tensor]:
            span = compute_span(weight, k)
            return {name: t.cpu() for name, t in (("left", span.left), ("right", span.right)) if t is not None}

        found = self.cache.get_or_compute(key("span", weight, k), compute)
        left, right = found.get("left"), found.get("right")
        return Span(left if left is None else left.to(weight.device), right if right is None else right.to(weight.device))

    def basis(self, weight: Tensor, k: int) -> SpectralBasis:
        """`lorax.spectral.compute_basis`; weight: [out, in], fp32."""
        if self.cache is None:
            return compute_basis(weight, k)

        def compute() -> Mapping[str, Tensor]:
            basis = compute_basis(weight, k)
            return {"U": basis.U.cpu(), "S": basis.S.cpu(), "V": basis.V.cpu()}

        found = self.cache.get_or_compute(key("basis", weight, k), compute)
        return SpectralBasis(*(found[name].to(weight.device) for name in ("U", "S", "V")))


def key(what: str, weight: Tensor, k: int) -> str:
    """Content address; GPU and CPU results differ in rounding and are kept apart."""
    return f"{what}{VERSION}-{weight.device.type}-{k}-{tensor_digest(weight)}"
