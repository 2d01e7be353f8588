"""Spans and bases of base weights, from the cache where they were computed before.

The key is the weight's content, the rank and the algorithm's version, and what is given is always what the cache would hold:
the result does not depend on what it held. Vectors are kept as 16-bit fixed point, which brings 6e-5 into a projected delta.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from lorax.cache import DEFAULT_LIMIT, Cache, default_folder
from lorax.checkpoint import Checkpoint
from lorax.device import free_unused, is_out_of_memory
from lorax.digest import tensor_digest
from lorax.layers import Layer
from lorax.linalg import flatten_weight
from lorax.spectral import Span, SpectralBasis, compute_bases, row_space
from lorax.tensorindex import TensorIndex
from lorax.workers import single_threaded

VERSION = "5"
"""Of the algorithms in `lorax.spectral` and of the entries: raise it when either changes."""
STEP = 320
"""Bases are computed and kept at multiples of this rank, so that one entry serves every smaller k."""

Entry = Mapping[str, Tensor]


class Weight:
    """A weight as a matrix [out, in·kh·kw], fp32: what a basis is asked of. It may lie in a file still."""

    def __init__(self, shape: tuple[int, int], device: torch.device, read: Callable[[], Tensor], digest: str | None = None) -> None:
        self.shape, self.device = shape, device
        self._read, self._digest = read, digest

    @cached_property
    def tensor(self) -> Tensor:
        return self._read()

    @property
    def digest(self) -> str:
        """Of the content; the weight is read where it is not known."""
        if self._digest is None:
            self._digest = tensor_digest(self.tensor)
        return self._digest


@dataclass(frozen=True)
class Bases:
    """Computes what is asked for, on the device of the weight, and remembers it in `cache` (None: nowhere)."""

    cache: Cache | None = None
    index: TensorIndex | None = None
    """What is known of the checkpoints' weights without reading them."""

    def weight(self, base: Checkpoint, layer: Layer, device: torch.device, k: int) -> Weight:
        """The weight of a layer, read already unless its digest is known and its basis is in the cache."""
        known = self.index.get(base, layer) if self.index else None
        read = lambda: flatten_weight(base.read(layer)).to(device)  # noqa: E731
        weight = Weight((layer.out_features, layer.in_features), device, read, known)
        if known is None and self.index is not None:
            self.index.learn(base, layer, weight.digest)
        if self.cache is None or not self.cache.has(key(weight, k)):
            _ = weight.tensor
        return weight

    def span(self, weight: Tensor | Weight, k: int) -> Span:
        """`lorax.spectral.compute_span`; weight: [out, in], fp32."""
        return self.spans([weight], k)[0]

    def spans(self, weights: Sequence[Tensor | Weight], k: int) -> list[Span]:
        """`span` of weights of one shape; on a GPU in one batch."""
        if k < min(weights[0].shape):
            return [Span(basis.U, basis.V) for basis in self.bases(weights, k)]
        return [self._whole(_weight(w)) for w in weights]

    def basis(self, weight: Tensor | Weight, k: int) -> SpectralBasis:
        """`lorax.spectral.compute_basis`; weight: [out, in], fp32."""
        return self.bases([weight], k)[0]

    def bases(self, weights: Sequence[Tensor | Weight], k: int) -> list[SpectralBasis]:
        """`basis` of weights of one shape; on a GPU in one batch."""
        asked = [_weight(w) for w in weights]
        rank = kept_rank(asked[0].shape, k)

        def compute(positions: Sequence[int]) -> list[Entry]:
            found = compute_where_there_is_room([asked[i].tensor for i in positions], rank)
            return [{**packed("U", b.U), "S": b.S.cpu(), **packed("V", b.V)} for b in found]

        entries = self._entries(asked, lambda w: basis_key(w, rank), compute)
        return [_basis(entry, k, w.device) for entry, w in zip(entries, asked, strict=True)]

    def save(self) -> None:
        """Keep what was learned of the checkpoints' weights."""
        if self.index is not None:
            self.index.save()

    def _whole(self, weight: Weight) -> Span:
        """The span where k reaches the full rank: one side is the whole space, unless the weight is deficient."""
        out, columns = weight.shape

        def compute(_: Sequence[int]) -> list[Entry]:
            matrix = weight.tensor
            rows = row_space(matrix if out <= columns else matrix.T)
            return [{} if rows is None else packed("rows", rows[:, : 0 if out == columns else None])]

        entry = self._entries([weight], rows_key, compute)[0]
        if not entry:
            basis = self.basis(weight, min(out, columns))
            return Span(basis.U, basis.V)
        rows = None if out == columns else unpacked(entry, "rows").to(weight.device)
        return Span(None, rows) if out <= columns else Span(rows, None)

    def _entries(
        self, weights: Sequence[Weight], key: Callable[[Weight], str], compute: Callable[[Sequence[int]], Sequence[Entry]]
    ) -> Sequence[Entry]:
        with single_threaded():
            if self.cache is None:
                return compute(range(len(weights)))
            return self.cache.get_or_compute_all([key(w) for w in weights], compute)


def default_bases(folder: Path | None = None, limit: int = DEFAULT_LIMIT) -> Bases:
    """Bases kept in `folder`, by default the user's cache folder, where the WebUI and the command line share them."""
    folder = folder or default_folder()
    return Bases(Cache(folder / "bases", limit), TensorIndex(folder / "tensors"))


def compute_where_there_is_room(weights: Sequence[Tensor], k: int) -> list[SpectralBasis]:
    """`compute_bases` on the weights' device: in one batch, one by one where that does not fit, or else on the CPU."""
    try:
        return compute_bases(weights, k)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        free_unused(weights[0].device)
    if len(weights) > 1:
        return [basis for weight in weights for basis in compute_where_there_is_room([weight], k)]
    return compute_bases([weights[0].cpu()], k)


def kept_rank(shape: tuple[int, int], k: int) -> int:
    """The rank at which a basis is computed and kept."""
    return min(-(-k // STEP) * STEP, *shape)


def key(weight: Weight, k: int) -> str:
    """Content address of what a span at k needs."""
    return basis_key(weight, kept_rank(weight.shape, k)) if k < min(weight.shape) else rows_key(weight)


def basis_key(weight: Weight, rank: int) -> str:
    """GPU and CPU results differ in rounding and are kept apart."""
    return f"basis{VERSION}-{weight.device.type}-{rank}-{weight.digest}"


def rows_key(weight: Weight) -> str:
    return f"rows{VERSION}-{weight.device.type}-{weight.digest}"


def packed(name: str, vectors: Tensor) -> Entry:
    """Columns [n, k] as 16-bit fixed point, each with its own step; laid out as in a file, for products round by layout."""
    step = torch.maximum(vectors.amax(0), -vectors.amin(0)) / 32767 if vectors.numel() else vectors.new_ones(vectors.shape[1])
    step = torch.where(step > 0, step, 1.0)
    return {name: (vectors / step).round_().short().cpu().contiguous(), f"{name}.step": step.cpu()}


def unpacked(entry: Entry, name: str) -> Tensor:
    """What `packed` kept, fp32."""
    return entry[name].float() * entry[f"{name}.step"]


def _basis(entry: Entry, k: int, device: torch.device) -> SpectralBasis:
    U, V = (unpacked({name: entry[name][:, :k], f"{name}.step": entry[f"{name}.step"][:k]}, name).to(device) for name in ("U", "V"))
    return SpectralBasis(U, entry["S"][:k].to(device), V)


def _weight(weight: Tensor | Weight) -> Weight:
    return weight if isinstance(weight, Weight) else Weight((weight.shape[0], weight.shape[1]), weight.device, lambda: weight)
