"""Laws of low-rank algebra, each against the dense computation."""

from __future__ import annotations

import pytest
import torch

from lorax.linalg import Factors, cosine, energy, factorise, flatten_weight, measure_together


def random_factors(out: int, n_in: int, rank: int, seed: int = 0) -> Factors:
    g = torch.Generator().manual_seed(seed)
    return Factors(torch.randn(out, rank, generator=g), torch.randn(rank, n_in, generator=g))


def test_a_convolution_is_flattened_row_by_row():
    weight = torch.arange(2 * 3 * 2 * 2).reshape(2, 3, 2, 2)
    assert flatten_weight(weight).tolist() == weight.flatten(1).tolist()
    assert flatten_weight(torch.ones(5)).shape == (5, 1)


@pytest.mark.parametrize(("out", "n_in", "rank"), [(24, 16, 4), (16, 24, 4), (6, 5, 9), (7, 1, 1)])
def test_energy_of_factors_is_that_of_the_dense_delta(out, n_in, rank):
    factors = random_factors(out, n_in, rank)
    assert factors.energy() == pytest.approx(energy(factors.dense()), rel=1e-5)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_compressed_is_the_best_approximation_of_its_rank(rank):
    factors = random_factors(24, 16, 8)
    u, s, vh = torch.linalg.svd(factors.dense())
    best = (u[:, :rank] * s[:rank]) @ vh[:rank]
    compressed = factors.compressed(rank)
    assert compressed.rank == rank
    torch.testing.assert_close(compressed.dense(), best, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [1.0, 1e-18, 1e-25])
def test_lengths_are_those_of_the_vectors_also_where_their_squares_vanish(size):
    factors = random_factors(6000, 16, 4)
    up, down = Factors(factors.up * size, factors.down).lengths()
    torch.testing.assert_close(up, (factors.up * size).double().norm(dim=0), rtol=1e-5, atol=0.0)
    torch.testing.assert_close(down, factors.down.double().norm(dim=1), rtol=1e-5, atol=0.0)


def test_deltas_that_are_measured_together_are_as_if_each_were_alone():
    shapes = [(24, 16, 4), (24, 16, 4), (6000, 16, 4), (24, 16, 2), (24, 16, 4)]
    deltas = [random_factors(*shape, seed=i) for i, shape in enumerate(shapes)]
    deltas[1] = Factors(deltas[1].up.half(), deltas[1].down.half())
    deltas[4] = Factors(deltas[4].up * 1e-25, deltas[4].down)
    measure_together(deltas)
    for delta in deltas:
        alone = Factors(delta.up, delta.down)
        assert delta.energy() == pytest.approx(alone.energy(), rel=1e-6)
        for mine, theirs in zip(delta.lengths(), alone.lengths(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=0.0)


def test_compressed_balances_its_factors():
    skewed = Factors(random_factors(24, 16, 4).up * 1e4, random_factors(24, 16, 4).down * 1e-4)
    balanced = skewed.compressed()
    torch.testing.assert_close(balanced.up.norm(dim=0), balanced.down.norm(dim=1), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(balanced.dense(), skewed.dense(), rtol=1e-4, atol=1e-4)


def test_kept_energy_takes_the_smallest_rank_that_keeps_it():
    u, v = torch.linalg.qr(torch.randn(20, 4)).Q, torch.linalg.qr(torch.randn(30, 4)).Q
    s = torch.tensor([8.0, 4.0, 2.0, 1.0])
    factors = Factors(u * s, v.T)
    assert [factors.compressed(kept=e).rank for e in (0.5, 64 / 85 - 1e-6, 0.77, 0.99, 1.0)] == [1, 1, 2, 4, 4]
    assert factors.compressed(rank=1, kept=1.0).rank == 1


def test_a_zero_delta_has_no_rank():
    assert Factors(torch.zeros(8, 3), torch.randn(3, 6)).compressed().rank == 0
    assert factorise(torch.zeros(8, 6)).rank == 0


def test_redundant_rank_is_dropped():
    factors = random_factors(12, 10, 2)
    doubled = Factors(torch.cat([factors.up, factors.up], 1), torch.cat([factors.down, factors.down]))
    assert doubled.compressed().rank == 2


@pytest.mark.parametrize("shape", [(24, 16), (16, 24), (12, 12)])
def test_factorise_agrees_with_the_svd(shape):
    delta = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(factorise(delta).dense(), delta, rtol=1e-4, atol=1e-4)
    u, s, vh = torch.linalg.svd(delta, full_matrices=False)
    torch.testing.assert_close(factorise(delta, rank=5).dense(), (u[:, :5] * s[:5]) @ vh[:5], rtol=1e-4, atol=1e-4)
    share = float(s[:5].square().sum() / s.square().sum())
    assert factorise(delta, kept=share - 1e-4).rank == 5


def test_cosine_is_one_for_multiples_and_zero_beside_a_zero():
    a = torch.randn(5, 4)
    assert cosine(a, 3 * a) == pytest.approx(1.0)
    assert cosine(a, -a) == pytest.approx(-1.0)
    assert cosine(a, torch.zeros(5, 4)) == 0.0
