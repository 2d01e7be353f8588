"""The engine: fp32 where its check holds, fp64 where it does not, and results that depend on the weight and the rank alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lorax import bases
from lorax.bases import Bases, default_bases, kept_rank, packed, unpacked
from lorax.linalg import Factors
from lorax.spectral import TOLERANCE, Span, SpectralBasis, basis, compute_bases, exact_basis
from lorax.workers import in_order, single_threaded

CPU = torch.device("cpu")


def weight(shape: tuple[int, int], decay: float | None) -> Tensor:
    g = torch.Generator().manual_seed(1)
    n = min(shape)
    u, v = (torch.linalg.qr(torch.randn(side, n, generator=g)).Q for side in shape)
    made = torch.randn(shape, generator=g) if decay is None else (u * torch.arange(1, n + 1).float() ** -decay) @ v.T
    return made.half().float()


def projected(span: Span, shape: tuple[int, int]) -> Tensor:
    g = torch.Generator().manual_seed(2)
    return span.project(Factors(torch.randn(shape[0], 8, generator=g), torch.randn(8, shape[1], generator=g))).dense()


@pytest.mark.parametrize("decay", [None, 0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("shape", [(288, 288), (272, 400), (400, 272)])
def test_a_delta_is_projected_within_the_tolerance(shape: tuple[int, int], decay: float | None) -> None:
    w = weight(shape, decay)
    exact, found = exact_basis(w, 72), compute_bases([w], 72)[0]
    wanted = projected(Span(exact.U, exact.V), shape)
    assert float((projected(Span(found.U, found.V), shape) - wanted).norm() / wanted.norm()) < TOLERANCE


def test_where_the_check_fails_fp64_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    w = weight((288, 288), None)
    monkeypatch.setattr(basis, "error_estimate", lambda *_: 1.0)
    found, exact = compute_bases([w], 72)[0], exact_basis(w, 72)
    assert torch.equal(found.U, exact.U)


def test_a_batch_is_its_members() -> None:
    pair = [weight((272, 288), None), weight((272, 288), 0.5)]
    for together, w in zip(compute_bases(pair, 40), pair, strict=True):
        torch.testing.assert_close(together.U, compute_bases([w], 40)[0].U, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("k", [8, 24, 40, 400])
def test_what_the_cache_held_changes_nothing(tmp_path: Path, k: int) -> None:
    w = weight((40, 24), 0.5)
    plain = projected(Bases().span(w, k), (40, 24))
    other = default_bases(tmp_path)
    other.span(w, 16)
    for _ in range(2):
        assert torch.equal(projected(other.span(w, k), (40, 24)), plain)


def test_one_entry_serves_every_smaller_k(tmp_path: Path) -> None:
    bases = default_bases(tmp_path)
    for k in (4, 9, 15):
        assert bases.basis(weight((16, 30), 0.5), k).k == k
    assert len(list((tmp_path / "bases").glob("*.safetensors"))) == 1
    assert [kept_rank((1280, 640), k) for k in (1, 320, 321, 2000)] == [320, 320, 640, 640]


def test_packing_keeps_three_digits_more_than_it_needs() -> None:
    vectors = torch.linalg.qr(torch.randn(300, 20, generator=torch.Generator().manual_seed(3))).Q
    assert float((unpacked(packed("U", vectors), "U") - vectors).norm() / vectors.norm()) < 1e-4


def test_rounding_does_not_depend_on_the_number_of_threads() -> None:
    w, before = weight((288, 300), None), torch.get_num_threads()
    found: list[Tensor] = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(Bases().basis(w, 64).U)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


def test_results_come_in_order_and_an_error_comes_through() -> None:
    def work(item: int, data: int) -> int:
        if item == 7:
            raise ValueError("seven")
        return data + torch.get_num_threads()

    before = torch.get_num_threads()
    stream = in_order(range(9), lambda i: 10 * i, work, lambda _: 1, CPU)
    assert [next(stream) for _ in range(7)] == [10 * i + 1 for i in range(7)]
    with pytest.raises(ValueError, match="seven"):
        next(stream)
    assert torch.get_num_threads() == before
    with single_threaded() as threads:
        assert (threads, torch.get_num_threads()) == (before, 1)


@pytest.mark.parametrize(("failing", "asked"), [((), [2]), ((0,), [2, 1, 1]), ((0, 1, 3), [2, 1, 1, 1, 1])])
def test_what_does_not_fit_on_a_gpu_is_done_one_by_one_and_then_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, failing: tuple[int, ...], asked: list[int]
) -> None:
    """failing: which calls find no room; asked: how many weights each call gets."""
    pair = [weight((272, 288), None), weight((272, 288), 0.5)]
    sizes: list[int] = []

    def compute(weights: list[Tensor], k: int) -> list[SpectralBasis]:
        sizes.append(len(weights))
        if len(sizes) - 1 in failing:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return compute_bases(weights, k)

    monkeypatch.setattr(bases, "compute_bases", compute)
    found = bases.compute_where_there_is_room(pair, 40)
    assert sizes == asked
    for one, w in zip(found, pair, strict=True):
        torch.testing.assert_close(one.U, compute_bases([w], 40)[0].U, rtol=1e-3, atol=1e-5)
