"""(a) Bases of a whole checkpoint from cold, against a loop of ``torch.linalg.svd``, with the error on a delta.

Weights of true shapes with singular values ``i^-decay``, rounded to fp16 as checkpoints are; "Gaussian" has independent entries. A few
weights of each shape are timed and multiplied by how many layers of that shape the model has; of `ROUNDS` times the median counts.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from benchmarks.real_size import TRUE_SIZE
from converter.samples.widths import layer_shapes
from lorax.archs import by_name
from lorax.bases import Bases
from lorax.layers import LayerKind
from lorax.linalg import Factors
from lorax.spectral import Span
from lorax.workers import in_order

K = 320
ROUNDS = 3
ALLOWED = 1e-3
"""Error on a delta. Where torch's SVD in fp32 is over it, the loop that is compared with runs in fp64."""
SPECTRA: dict[str, float | None] = {"Gaussian": None, "decay 0": 0.0, "decay 0.5": 0.5, "decay 1": 1.0}
Shape = tuple[int, int]


def counted_shapes(name: str) -> Counter[Shape]:
    """Shapes of the transformer's linear layers, which a LoRA of attention and feed-forward adapts, with their numbers."""
    arch = by_name(name)
    shapes = layer_shapes(arch, TRUE_SIZE)
    wanted = [s.id for s in arch.layers() if s.unit.kind == "transformer" and s.kind == LayerKind.LINEAR]
    return Counter((shapes[i][0], shapes[i][1]) for i in wanted)


@dataclass
class Timed:
    """One shape and one spectrum, seconds a layer."""

    shape: Shape
    svd: float | None
    """None where torch's SVD does not converge."""
    ours: float
    svd_error: float | None
    error: float
    double: bool = False
    """The SVD had to be in fp64 to come under `ALLOWED`."""


@dataclass
class Totals:
    """Seconds of a model's layers with k < n, and with k ≥ n."""

    name: str
    spectrum: str
    svd: float = 0.0
    ours: float = 0.0
    svd_full: float = 0.0
    ours_full: float = 0.0
    diverged: int = 0
    """Layers whose SVD did not converge; they are in neither of the sums that are compared."""
    ours_alone: float = 0.0
    """Our seconds of these."""
    double: bool = False
    """The loop ran in fp64."""
    errors: list[float] = field(default_factory=list)
    svd_errors: list[float] = field(default_factory=list)


class Maker:
    """Weights of one shape with any spectrum: random singular vectors, made once."""

    def __init__(self, shape: Shape, seed: int = 0) -> None:
        self.shape, n = shape, min(shape)
        g = torch.Generator().manual_seed(seed)
        self.u, self.v = (torch.linalg.qr(torch.randn(side, n, generator=g)).Q for side in shape)
        self.gaussian = torch.randn(shape, generator=g) * 0.02

    def weights(self, decay: float | None, count: int) -> list[Tensor]:
        """Weights of one spectrum; rows and columns change places, so that equal work is done on different weights."""
        n = torch.arange(1, min(self.shape) + 1).float()
        made = self.gaussian if decay is None else (self.u * n**-decay) @ self.v.T
        return [made.roll(i, 0).roll(-i, 1).half().float() for i in range(count)]


def exact_span(weight: Tensor, k: int) -> Span:
    """In fp64, by the eigendecomposition of the Gram matrix: 1e-8 for these spectra."""
    wide = weight.shape[0] <= weight.shape[1]
    matrix = (weight if wide else weight.T).double()
    short = torch.linalg.eigh(matrix @ matrix.T).eigenvectors[:, -k:]
    long = torch.linalg.qr(matrix.T @ short).Q
    return Span(short, long) if wide else Span(long, short)


def error(span: Span, exact: Span) -> float:
    """``‖P̂ ΔW Q̂ − P ΔW Q‖ / ‖P ΔW Q‖`` of a random delta of rank 32; a side that is the whole space counts as such."""
    left, right = exact.left, exact.right
    assert left is not None
    assert right is not None
    g = torch.Generator().manual_seed(5)
    delta = Factors(torch.randn(left.shape[0], 32, generator=g).double(), torch.randn(32, right.shape[0], generator=g).double())
    sides = (None if side is None else side.double() for side in (span.left, span.right))
    found, wanted = Span(*sides).project(delta), exact.project(delta)
    return (Factors(torch.cat([found.up, -wanted.up], 1), torch.cat([found.down, wanted.down])).energy() / wanted.energy()) ** 0.5


def timed_svd(weight: Tensor, k: int) -> tuple[float, Span | None]:
    """What peers do: seconds and the span, None where it does not converge."""
    seconds, span = list[float](), None
    for _ in range(ROUNDS):
        start = time.perf_counter()
        try:
            u, _, vh = torch.linalg.svd(weight, full_matrices=False)
        except RuntimeError:  # torch.linalg.LinAlgError
            return 0.0, None
        seconds.append(time.perf_counter() - start)
        span = Span(u[:, :k], vh[:k].T)
    return statistics.median(seconds), span


def timed_engine(weights: list[Tensor], device: torch.device) -> tuple[float, Span]:
    """Seconds a weight of the engine with a weight a thread, and the first one's span. Nothing is kept, so nothing is hashed."""
    bases = Bases()

    def work(_: Tensor, weight: Tensor) -> Span:
        return bases.span(weight.to(device), K)

    seconds, spans = list[float](), list[Span]()
    for _ in range(ROUNDS):
        start = time.perf_counter()
        spans = list(in_order(weights, lambda w: w, work, lambda w: w.nbytes, device))
        seconds.append((time.perf_counter() - start) / len(weights))
    return statistics.median(seconds), spans[0]


def time_shape(maker: Maker, decay: float | None, device: torch.device) -> Timed:
    """One SVD with all threads, and the engine, one after the other."""
    weights = maker.weights(decay, 2 * torch.get_num_threads())
    svd, peers = timed_svd(weights[0], K)
    ours, span = timed_engine(weights, device)
    if min(maker.shape) <= K:
        return Timed(maker.shape, svd, ours, 0.0, 0.0)
    exact = exact_span(weights[0], K)
    mine = Span(*(None if side is None else side.cpu() for side in (span.left, span.right)))
    double = peers is None or error(peers, exact) > ALLOWED
    if double:
        svd, peers = timed_svd(weights[0].double(), K)
    if peers is None:
        return Timed(maker.shape, None, ours, None, error(mine, exact))
    return Timed(maker.shape, svd, ours, error(peers, exact), error(mine, exact), double)


def measure(names: tuple[str, ...], device: torch.device) -> Iterator[Totals]:
    """Totals of each model and spectrum."""
    counts = {name: counted_shapes(name) for name in names}
    totals = {(name, spectrum): Totals(name, spectrum) for name in names for spectrum in SPECTRA}
    for shape in sorted(set().union(*counts.values())):
        maker = Maker(shape)
        time_shape(maker, None, device)  # the first call of a shape pays for the threads' start
        for spectrum, decay in SPECTRA.items():
            timed = time_shape(maker, decay, device)
            for name in names:
                if counts[name][shape]:
                    add(totals[name, spectrum], timed, counts[name][shape])
    yield from totals.values()


def add(total: Totals, timed: Timed, count: int) -> None:
    if min(timed.shape) <= K:
        total.svd_full += (timed.svd or 0.0) * count
        total.ours_full += timed.ours * count
        return
    total.errors.append(timed.error)
    if timed.svd is None or timed.svd_error is None:
        total.diverged += count
        total.ours_alone += timed.ours * count
        return
    total.double |= timed.double
    total.svd += timed.svd * count
    total.ours += timed.ours * count
    total.svd_errors.append(timed.svd_error)


def time_of_k(ranks: tuple[int, ...], shape: Shape = (1280, 1280)) -> list[tuple[int, float]]:
    """Seconds of one basis at each k."""
    weight, found = Maker(shape).weights(0.5, 1)[0], []
    for k in ranks:
        start = time.perf_counter()
        Bases().basis(weight, k)
        found.append((k, time.perf_counter() - start))
    return found
