"""Tensor maths of low-rank deltas. Everything is `[out, in]`; a convolution is flattened first."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

SHORT = 1e-12
"""Lengths under this are looked at more closely."""
WIDTH = 1 << 12
"""Columns of a product that are summed in fp32 before fp64 takes over."""
COLUMNS = 1280
"""Columns of a weight that are gone through at a time, so that they stay in a core's cache."""
PIECE = 1 << 14
"""Numbers that are summed in fp32 before fp64 takes over: the rounding stays under 1e-7."""


def flatten_weight(weight: Tensor) -> Tensor:
    """A weight as a matrix: [out, in] stays, [out, in, kh, kw] becomes [out, in·kh·kw], a vector becomes [n, 1].

    The only place that says how a convolution is flattened.
    """
    return weight.reshape(weight.shape[0], -1)


def energy(matrix: Tensor) -> float:
    """Squared Frobenius norm, accumulated in fp64."""
    return float(in_double(matrix).square().sum())


Measured = tuple[float, Tensor, Tensor]
"""‖ΔW‖²_F, and the lengths of the columns of up and of the rows of down, [r] each in fp64."""


@dataclass(frozen=True, eq=False)
class Factors:
    """A low-rank delta ``ΔW = up @ down``, every scale already folded in.

    Laws: ``rank`` of every result is at most the rank of what it was made from; no method forms ``[out, in]`` but `dense`.
    """

    up: Tensor
    """[out, r], fp32; a copy that is only written again stays in the file's dtype"""
    down: Tensor
    """[r, in·kh·kw], alike"""

    @property
    def rank(self) -> int:
        return self.up.shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """[out, in·kh·kw] of the delta."""
        return self.up.shape[0], self.down.shape[1]

    def dense(self) -> Tensor:
        """The delta as a matrix, [out, in·kh·kw]."""
        return self.up @ self.down

    @cached_property
    def _measured(self) -> Measured:
        """Energy and lengths come from the same r×r products, and are asked for more than once."""
        return _measure([self])[0]

    def energy(self) -> float:
        """‖ΔW‖²_F = trace((upᵀ up)(down downᵀ)), from r×r matrices in fp64."""
        return self._measured[0]

    def lengths(self) -> tuple[Tensor, Tensor]:
        """Euclidean lengths of the columns of up and of the rows of down, [r] in fp64."""
        return self._measured[1:]

    def scaled(self, strength: float) -> Factors:
        """The delta times `strength`."""
        return self if strength == 1.0 else Factors(self.up * strength, self.down)

    def balanced(self) -> Factors:
        """The same delta with factors of about equal size, direction by direction; directions that are zero are left out.

        The sizes move by powers of two, so that no digit of a stored number changes.
        """
        up, down = self.lengths()
        there = (up > 0) & (down > 0)
        step = torch.exp2((torch.log2(down[there] / up[there]) / 2).round()).to(self.up)
        there = there.to(self.up.device)
        if bool(there.all()):
            return self if bool((step == 1).all()) else Factors(self.up * step, self.down / step[:, None])
        return Factors(self.up[:, there] * step, self.down[there] / step[:, None])

    def compressed(self, rank: int | None = None, kept: float | None = None) -> Factors:
        """The best approximation of lower rank, with √S balanced between the two factors.

        rank: largest rank of the result; None keeps them all.
        kept: smallest share of the energy to keep, 0 < kept ≤ 1; the smallest rank that keeps it is taken, within `rank`.

        By QR(up), QR(downᵀ) and an SVD of r×r, so the dense delta is never formed. Singular values at rounding level are
        dropped, hence the rank may shrink (to 0 for a zero delta) even without a limit.
        """
        q_up, r_up = qr(in_double(self.up))
        q_down, r_down = qr(in_double(self.down).T)
        u, s, vh = svd(r_up @ r_down.T)
        n = truncation_rank(s, rank, kept)
        root = s[:n].sqrt()
        up, down = (q_up @ u[:, :n]) * root, root[:, None] * (q_down @ vh[:n].T).T
        return Factors(up.to(self.up), down.to(self.down))


def measure_together(deltas: Iterable[Factors]) -> None:
    """Measure many deltas in a few calls, those of one shape in one: each knows its energy and lengths afterwards."""
    alike: dict[object, list[Factors]] = defaultdict(list)
    for delta in deltas:
        alike[delta.up.shape, delta.down.shape, delta.up.dtype, delta.down.dtype, delta.up.device].append(delta)
    for group in alike.values():
        for delta, found in zip(group, _measure(group), strict=True):
            delta.__dict__["_measured"] = found


def _measure(alike: Sequence[Factors]) -> list[Measured]:
    """Of deltas of one shape."""
    up, down = torch.stack([f.up for f in alike]).mT, torch.stack([f.down for f in alike])
    left, right = row_products(up), row_products(down)
    energies = (left * right).sum((1, 2)).clamp_min(0).tolist()
    return list(zip(energies, lengths(up, left), lengths(down, right), strict=True))


def lengths(rows: Tensor, products: Tensor) -> Tensor:
    """Euclidean lengths of rows [b, r, n], [b, r] in fp64, from their products [b, r, r]; anew where squares vanish in fp32."""
    found = products.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt()
    return found if bool((found > SHORT).all()) else torch.linalg.vector_norm(in_double(rows), dim=2)


def factorise(delta: Tensor, rank: int | None = None, kept: float | None = None) -> Factors:
    """A dense delta [out, in·kh·kw] as balanced `Factors`; `rank` and `kept` as in `Factors.compressed`.

    By the eigendecomposition of the smaller Gram matrix in fp64: the singular values that matter to the energy are exact to
    fp32, and it costs a fraction of a full SVD.
    """
    wide = delta.shape[0] > delta.shape[1]
    matrix = in_double(delta.T if wide else delta)
    values, vectors = eigh(matrix @ matrix.T)
    s = values.flip(0).clamp_min(0).sqrt()
    n = truncation_rank(s, rank, kept, tolerance=1e-7)
    u = vectors.flip(1)[:, :n]
    root = s[:n].sqrt()
    short, long = u * root, (u.T @ matrix) / root[:, None]
    up, down = (long.T, short.T) if wide else (short, long)
    return Factors(*(side.float().contiguous().to(delta.device) for side in (up, down)))


def truncation_rank(s: Tensor, rank: int | None, kept: float | None, tolerance: float = 1e-12) -> int:
    """How many of the descending singular values `s` to keep; those under `tolerance` times the largest are never kept."""
    if s.numel() == 0 or float(s[0]) == 0.0:
        return 0
    n = int((s > s[0] * tolerance).sum())
    if kept is not None:
        share = s.square().cumsum(0) / s.square().sum()
        n = min(n, int((share < kept).sum()) + 1)
    return n if rank is None else min(n, rank)


def has_double(device: torch.device) -> bool:
    """Whether a device computes in fp64: MPS never does, and of Intel's GPUs not each."""
    if device.type == "xpu":
        return bool(torch.xpu.get_device_properties(device).has_fp64)
    return device.type != "mps"


def in_double(tensor: Tensor) -> Tensor:
    """The tensor in fp64; on the CPU where the device has none."""
    return tensor.double() if has_double(tensor.device) else tensor.cpu().double()


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and eigenvectors of symmetric matrices [..., n, n], of which the lower half alone is read.

    It is given as the upper half of the transpose, with which LAPACK is a twentieth faster.
    """
    values, vectors = _where_it_can(lambda m: torch.linalg.eigh(m.mT, UPLO="U"), matrix)
    return values, vectors


def qr(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The reduced QR decomposition of [m, n]."""
    q, r = _where_it_can(torch.linalg.qr, matrix)
    return q, r


def svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The thin SVD ``U, S, Vh`` of matrices [..., m, n]."""
    u, s, vh = _where_it_can(lambda m: torch.linalg.svd(m, full_matrices=False), matrix)
    return u, s, vh


def _where_it_can(decompose: Callable[[Tensor], tuple[Tensor, ...]], matrix: Tensor) -> tuple[Tensor, ...]:
    """The decomposition on the matrix's device, or on the CPU where that device has none, as MPS and XPU have not each."""
    try:
        return decompose(matrix)
    except NotImplementedError:
        return tuple(part.to(matrix.device) for part in decompose(matrix.cpu()))


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of two tensors of one shape as vectors; 0 where one of them is zero."""
    norm = (inner(a, a) * inner(b, b)) ** 0.5
    return inner(a, b) / norm if norm else 0.0


def inner(a: Tensor, b: Tensor) -> float:
    """Inner product of two tensors of one shape: pieces of `PIECE` numbers in their own precision, their sum in fp64.

    Nothing of the tensors' size is made beside them.
    """
    if a.ndim == 2 and not a.is_contiguous():
        a, b = a.T, b.T
    pairs = zip(a.reshape(-1).split(PIECE), b.reshape(-1).split(PIECE), strict=True)
    return float(in_double(torch.stack([torch.dot(x, y) for x, y in pairs])).sum())


def row_products(rows: Tensor) -> Tensor:
    """``R Rᵀ`` of rows [b, r, n] in fp64: pieces of `WIDTH` columns in fp32 (fp64 rows in their own), their sum in fp64."""
    wide = rows if rows.dtype == torch.float64 else rows.float()
    first, *others = (in_double(part @ part.mT) for part in wide.split(WIDTH, 2))
    return sum(others, first)


def gram_product(rows: Tensor, weight: Tensor) -> Tensor:
    """``R W Wᵀ`` [b, n] of a few rows R [b, n] and W [n, long], in one pass over W.

    From the left, because products with a few rows are far quicker than with a few columns.
    """
    product = rows.new_zeros(rows.shape)
    for part in weight.split(COLUMNS, 1):
        product.addmm_(rows @ part, part.T)
    return product


def all_finite(tensor: Tensor) -> bool:
    """No NaN and no infinity. A sum with one of them is never finite, and is far quicker than looking at each number."""
    return math.isfinite(float(tensor.sum())) or bool(torch.isfinite(tensor).all())
