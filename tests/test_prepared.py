"""The Gram matrix that fp32 is given: what is taken out of it, and that what is left keeps the subspace."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lorax import bases
from lorax.bases import Bases
from lorax.spectral import basis, compute_bases, exact_basis, prepared
from lorax.spectral.prepared import gram, leading_directions, prepare, sketch

SHAPES = [(320, 320), (288, 1500), (300, 2600)]


def values(name: str, n: int) -> Tensor:
    i = torch.arange(1, n + 1).float()
    return {
        "decay 1": i**-1,
        "decay 1.5": i**-1.5,
        "a head over a floor": i**-1 + 0.02,
        "outliers": torch.cat([torch.tensor([30.0, 20.0, 10.0]), i[3:] ** -0.5]),
    }[name]


def weight(shape: tuple[int, int], name: str) -> Tensor:
    g = torch.Generator().manual_seed(4)
    u, v = (torch.linalg.qr(torch.randn(side, min(shape), generator=g)).Q for side in shape)
    return ((u * values(name, min(shape))) @ v.T).half().float()


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_gram_matrix_is_made_in_pieces_and_without_what_is_taken_out(shape: tuple[int, int], turned: bool) -> None:
    rows = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    rows = rows.T.contiguous().T if turned else rows
    out = torch.linalg.qr(torch.randn(shape[0], 7, generator=torch.Generator().manual_seed(2))).Q
    kept = rows.double() - out.double() @ (out.double().T @ rows.double())
    for found, wanted in ((gram(rows), rows.double()), (gram(rows, out), kept), (gram(rows, out[:, :0]), rows.double())):
        torch.testing.assert_close(found.tril().double(), (wanted @ wanted.T).tril(), rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("name", ["decay 1", "decay 1.5", "a head over a floor", "outliers"])
@pytest.mark.parametrize("shape", SHAPES)
def test_leading_directions_lie_inside_the_subspace_that_is_kept(shape: tuple[int, int], name: str) -> None:
    w, k = weight(shape, name), 80
    found, kept = leading_directions(w, k).double(), exact_basis(w, k).U.double()
    assert found.shape[1] >= 3
    assert float((found.T @ found - torch.eye(found.shape[1])).abs().max()) < 1e-5
    assert float((found - kept @ (kept.T @ found)).norm(dim=0).max()) < prepared.LEAK


def test_taking_them_out_leaves_a_spectrum_that_is_less_steep() -> None:
    w = weight((320, 320), "decay 1")
    left = prepare(w, 80)
    assert float(left.gram.diagonal().sum()) < 0.2 * float(w.square().sum())


@pytest.mark.parametrize("name", ["decay 1", "decay 1.5", "a head over a floor", "outliers"])
@pytest.mark.parametrize("shape", [(320, 320), (288, 1500), (1500, 288)])
def test_steep_spectra_need_no_fp64(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], name: str) -> None:
    w = weight(shape, name)
    exact = exact_basis(w, 80)
    monkeypatch.setattr(basis, "exact_basis", lambda *_: pytest.fail("fp64 was taken"))
    found = compute_bases([w], 80)[0]
    torch.testing.assert_close(found.S, exact.S, rtol=1e-4, atol=0.0)
    for mine, theirs in ((found.U, exact.U), (found.V, exact.V)):
        assert float((mine @ (mine.T @ theirs) - theirs).norm()) < 2e-3 * 80**0.5


@pytest.mark.parametrize("shape", [(300, 300), (288, 1500), (1500, 288)])
def test_one_large_column_is_not_missed(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]) -> None:
    w = torch.randn(shape, generator=torch.Generator().manual_seed(6))
    w[:, 5] *= 300
    matrix = w if shape[0] <= shape[1] else w.T
    assert float((leading_directions(matrix, 80).T @ exact_basis(matrix, 1).U).norm()) > 1 - 1e-5
    monkeypatch.setattr(basis, "exact_basis", lambda *_: pytest.fail("fp64 was taken"))
    assert compute_bases([w], 80)[0].k == 80


@pytest.mark.parametrize("columns", [64, 100, 1500])
def test_a_sketch_keeps_lengths(columns: int) -> None:
    """Sums with random signs: the mean of ‖xᵀ W Ω‖² is ‖xᵀ W‖², and with as many sums as columns it is that itself."""
    w, x = (torch.randn(n, m, generator=torch.Generator().manual_seed(n)) for n, m in ((30, 1500), (200, 30)))
    share = float((x @ sketch(w, columns)).square().sum() / (x @ w).square().sum())
    assert share == pytest.approx(1, abs=1e-5 if columns == 1500 else 0.2)


def test_without_a_cache_nothing_is_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bases, "tensor_digest", lambda _: pytest.fail("hashed"))
    assert Bases().basis(torch.randn(40, 30, generator=torch.Generator().manual_seed(1)), 8).k == 8
