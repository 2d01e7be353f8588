"""Laws of bases, spans and similarity (Eq. 3 and 4 of LoRA-X)."""

from __future__ import annotations

import pytest
import torch

from lorax.linalg import Factors
from lorax.spectral import (
    above_chance,
    compute_basis,
    compute_leading,
    compute_span,
    row_space,
    similarity,
    similarity_rank,
)

SHAPES = [(24, 16), (16, 24), (20, 20)]


def powerlaw(shape: tuple[int, int], decay: float = 0.5, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    n = min(shape)
    u = torch.linalg.qr(torch.randn(shape[0], n, generator=g)).Q
    v = torch.linalg.qr(torch.randn(shape[1], n, generator=g)).Q
    return (u * torch.arange(1, n + 1).float() ** -decay) @ v.T


def factors_for(shape: tuple[int, int], rank: int = 3) -> Factors:
    g = torch.Generator().manual_seed(9)
    return Factors(torch.randn(shape[0], rank, generator=g), torch.randn(rank, shape[1], generator=g))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("k", [1, 5, 100])
def test_basis_agrees_with_the_svd(shape, k):
    weight = powerlaw(shape)
    basis = compute_basis(weight, k)
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    n = min(k, *shape)
    torch.testing.assert_close(basis.S, s[:n], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close((basis.U * basis.S) @ basis.V.T, (u[:, :n] * s[:n]) @ vh[:n], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(basis.U.T @ basis.U, torch.eye(n), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(basis.V.T @ basis.V, torch.eye(n), rtol=1e-5, atol=1e-5)


def test_basis_of_the_transpose_is_the_transposed_basis():
    weight = powerlaw((24, 16))
    a, b = compute_basis(weight, 6), compute_basis(weight.T, 6)
    torch.testing.assert_close(a.U, b.V, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(a.V, b.U, rtol=1e-4, atol=1e-5)


def test_slicing_a_basis_is_computing_a_smaller_one():
    weight = powerlaw((24, 16))
    torch.testing.assert_close(compute_basis(weight, 9).sliced(4).U, compute_basis(weight, 4).U)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("k", [3, 16, 99])
def test_factored_projection_equals_dense_projection_and_the_equation(shape, k):
    weight, delta = powerlaw(shape), factors_for(shape)
    basis = compute_basis(weight, k)
    expected = basis.U @ basis.U.T @ delta.dense() @ basis.V @ basis.V.T
    span = compute_span(weight, k)
    torch.testing.assert_close(span.project(delta).dense(), expected, rtol=1e-4, atol=1e-4)
    dense = span.project_dense(delta.dense())
    torch.testing.assert_close(dense.dense() if isinstance(dense, Factors) else dense, expected, rtol=1e-4, atol=1e-4)
    assert span.project(delta).rank == delta.rank


@pytest.mark.parametrize("shape", SHAPES)
def test_projecting_twice_is_projecting_once(shape):
    span = compute_span(powerlaw(shape), 7)
    once = span.project(factors_for(shape))
    torch.testing.assert_close(span.project(once).dense(), once.dense(), rtol=1e-4, atol=1e-5)


def test_full_rank_on_a_square_weight_is_a_copy_and_needs_no_basis():
    span = compute_span(powerlaw((20, 20)), 20)
    assert (span.left, span.right) == (None, None)


@pytest.mark.parametrize(("shape", "whole"), [((16, 24), "left"), ((24, 16), "right")])
def test_full_rank_leaves_the_short_side_whole(shape, whole):
    span = compute_span(powerlaw(shape), 320)
    assert getattr(span, whole) is None
    other = span.right if whole == "left" else span.left
    assert other is not None
    torch.testing.assert_close(other.T @ other, torch.eye(16), rtol=1e-5, atol=1e-5)


def test_a_rank_deficient_weight_is_not_the_whole_space():
    weight = powerlaw((20, 20))
    weight[:5] = 0.0
    assert row_space(weight) is None
    span = compute_span(weight, 20)
    assert span.left is not None
    assert span.left.shape == (20, 15)
    assert float(span.project(factors_for((20, 20))).up[:5].abs().max()) < 1e-6


def test_a_zero_weight_spans_nothing():
    span = compute_span(torch.zeros(8, 8), 4)
    assert span.project(factors_for((8, 8))).energy() == 0.0


def test_a_native_delta_on_its_own_base_is_left_as_it_is():
    weight = powerlaw((24, 16))
    basis = compute_basis(weight, 6)
    native = Factors(basis.U * torch.linspace(1, 2, 6), basis.V.T)
    torch.testing.assert_close(compute_span(weight, 6).project(native).dense(), native.dense(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(256, 192), (192, 256)])
@pytest.mark.parametrize(
    "draw",
    [lambda shape, seed: torch.randn(shape, generator=torch.Generator().manual_seed(seed)), lambda shape, seed: powerlaw(shape, 0.5, seed)],
)
def test_unrelated_weights_sit_at_chance_and_equal_ones_at_one(draw, shape):
    def make(seed):
        return draw(shape, seed)

    k = similarity_rank(shape)
    pairs = [(compute_leading(make(2 * i), k), compute_leading(make(2 * i + 1), k)) for i in range(6)]
    for side, n in zip("UV", shape, strict=True):
        values = [above_chance(similarity(getattr(a, side), getattr(b, side)), k / n) for a, b in pairs]
        assert abs(sum(values) / len(values)) < 0.03
    a = compute_leading(make(0), k)
    assert similarity(a.U, compute_leading(make(0), k).U) == pytest.approx(1.0, abs=1e-5)


def test_similarity_falls_with_distance_from_the_base():
    weight = powerlaw((128, 96))
    noise = torch.randn(128, 96, generator=torch.Generator().manual_seed(4))
    noise *= weight.norm() / noise.norm()
    base = compute_leading(weight, 24)
    values = [similarity(base.U, compute_leading(weight + e * noise, 24).U) for e in (0.0, 0.1, 0.5, 3.0)]
    assert values == sorted(values, reverse=True)
    assert values[1] > 0.9 > values[3]


@pytest.mark.parametrize("shape", [(64, 64), (192, 64), (64, 192)])
def test_leading_directions_are_the_singular_ones_where_the_spectrum_has_a_gap(shape):
    u, v = (torch.linalg.qr(torch.randn(n, 64)).Q for n in shape)
    s = torch.cat([torch.full((8,), 10.0), torch.full((56,), 0.1)])
    leading = compute_leading((u * s) @ v.T, 8)
    assert similarity(leading.U, u[:, :8]) == pytest.approx(1.0, abs=1e-4)
    assert similarity(leading.V, v[:, :8]) == pytest.approx(1.0, abs=1e-4)
