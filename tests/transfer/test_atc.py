"""Transferability cost: exact optimal transport on small cases that can be solved by hand or by brute force."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch

from lorax.transfer.atc import balanced_cost, combine, cost_matrix, free_source_cost


def test_equal_models_cost_nothing():
    spaces = [torch.linalg.qr(torch.randn(32, 4)).Q for _ in range(3)]
    cost = cost_matrix(spaces, spaces)
    assert free_source_cost(cost) == pytest.approx(0.0, abs=1e-5)
    assert balanced_cost(cost) == pytest.approx(0.0, abs=1e-5)


def test_pruning_is_free_unless_the_source_is_charged():
    spaces = [torch.linalg.qr(torch.randn(64, 4)).Q for _ in range(4)]
    cost = cost_matrix(spaces, spaces[:2])
    assert free_source_cost(cost) == pytest.approx(0.0, abs=1e-5)
    assert balanced_cost(cost) > 0.3


def test_balanced_cost_of_a_square_matrix_is_the_best_assignment():
    cost = torch.rand(4, 4, generator=torch.Generator().manual_seed(0))
    best = min(sum(float(cost[i, p[i]]) for i in range(4)) / 4 for p in permutations(range(4)))
    assert balanced_cost(cost) == pytest.approx(best, abs=1e-6)


def test_groups_are_weighted_by_their_target_modules():
    cheap, dear = torch.zeros(2, 3), torch.ones(2, 1)
    atc = combine([(cheap, dear[:, :1].expand(2, 3)), (dear, dear)])
    assert atc is not None
    assert atc.left == pytest.approx(0.25)
    assert atc.right == pytest.approx(1.0)
    assert combine([]) is None
