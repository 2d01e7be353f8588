"""The laws of LoRA-X on one layer and on any model."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lorax.errors import BaseMismatch, LoraxError, WouldOverwrite
from lorax.formats.fingerprint import fingerprint
from lorax.linalg import Factors, flatten_weight
from lorax.train import Network, attach
from lorax.train.forms import choose_form, factored_cost, merged_cost

LAYERS = [
    (nn.Linear(12, 20), (3, 7, 12)),
    (nn.Linear(20, 12, bias=False), (5, 20)),
    (nn.Conv2d(4, 6, 3, padding=1), (2, 4, 8, 8)),
    (nn.Conv2d(4, 6, 3, stride=2, padding=1, padding_mode="reflect"), (2, 4, 8, 8)),
    (nn.Conv2d(8, 5, 1), (1, 8, 3, 3)),
    (nn.Conv1d(4, 6, 3, dilation=2), (2, 4, 12)),
]
IDS = ["linear", "no bias", "conv", "strided", "1x1", "1d"]


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Flatten(), nn.Linear(8 * 16, 10), nn.SiLU(), nn.Linear(10, 4))


def put_on(layer: nn.Module, k: int = 5, **kwargs: object) -> Network:
    return attach(nn.Sequential(layer), k, **kwargs)  # type: ignore[arg-type]


def train_a_little(network: Network, seed: int = 1, size: float = 0.3) -> None:
    with torch.no_grad():
        for i, p in enumerate(network.parameters()):
            p.add_(size * torch.randn(p.shape, generator=torch.Generator().manual_seed(seed + i)))


def delta_of(network: Network) -> Tensor:
    return next(iter(network.modules_by_name.values())).factors().dense()


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=IDS)
@pytest.mark.parametrize("full", [False, True], ids=["diagonal", "full"])
@pytest.mark.parametrize("form", ["factored", "merged", "auto"])
def test_it_starts_as_the_base_exactly(layer: nn.Module, shape: tuple[int, ...], full: bool, form: str) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    before = layer(x)
    network = put_on(layer, full=full, form=form)
    assert torch.equal(layer(x), before)
    train_a_little(network)
    assert not torch.allclose(layer(x), before)
    network.take_off()
    assert torch.equal(layer(x), before)
    assert "forward" not in vars(layer)


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=IDS)
@pytest.mark.parametrize("full", [False, True], ids=["diagonal", "full"])
def test_both_forms_compute_the_same_with_the_same_gradients(layer: nn.Module, shape: tuple[int, ...], full: bool) -> None:
    results: list[tuple[Tensor, Tensor, Tensor]] = []
    for form in ("factored", "merged"):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
        network = put_on(layer, full=full, form=form)
        train_a_little(network)
        y = layer(x)
        y.square().sum().backward()
        sigma = next(network.parameters())
        assert x.grad is not None
        assert sigma.grad is not None
        results.append((y.detach(), x.grad, sigma.grad))
        network.take_off()
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=IDS)
@pytest.mark.parametrize("full", [False, True], ids=["diagonal", "full"])
def test_the_delta_lies_in_the_bases_own_subspaces(layer: nn.Module, shape: tuple[int, ...], full: bool) -> None:
    network = put_on(layer, 4, full=full)
    train_a_little(network)
    delta = delta_of(network)
    U, _, Vh = torch.linalg.svd(flatten_weight(layer.weight.detach()), full_matrices=False)  # type: ignore[arg-type]
    U, V = U[:, :4], Vh[:4].T
    torch.testing.assert_close(U @ (U.T @ delta @ V) @ V.T, delta, rtol=1e-4, atol=1e-5)
    x = torch.randn(shape)
    changed = copy.deepcopy(layer)
    network.take_off()
    plain = copy.deepcopy(layer)
    with torch.no_grad():
        plain.weight += delta.reshape(plain.weight.shape)  # type: ignore[operator, union-attr]
    del changed
    network.put_on()
    torch.testing.assert_close(layer(x), plain(x), rtol=1e-4, atol=1e-4)
    network.take_off()


@pytest.mark.parametrize("full", [False, True], ids=["diagonal", "full"])
def test_the_kept_fingerprint_is_that_of_the_dense_delta(full: bool) -> None:
    network = put_on(nn.Linear(30, 22), 6, full=full)
    train_a_little(network)
    adapter = next(iter(network.modules_by_name.values()))
    sigma = adapter.stored_sigma(torch.float32)
    assert adapter.fingerprint(sigma) == pytest.approx(fingerprint(delta_of(network)), rel=1e-4, abs=1e-5)


def test_only_sigma_is_trained_and_stored_in_the_state() -> None:
    net = model()
    network = attach(net, k=6)
    assert {n.rsplit(".", 1)[1] for n, _ in network.named_parameters()} == {"sigma"}
    assert {n.rsplit(".", 1)[1] for n in network.state_dict()} == {"sigma"}
    assert [p.numel() for p in network.parameters()] == [6, 6, 4], "k is cut to the rank of the weight"


def test_training_lowers_the_loss_and_a_multiplier_scales_it() -> None:
    net = model().requires_grad_(False)
    x, y = torch.randn(32, 3, 4, 4), torch.randn(32, 4)
    base_loss = float(functional.mse_loss(net(x), y))
    network = attach(net, k=8)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(40):
        loss = functional.mse_loss(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        trained = float(functional.mse_loss(net(x), y))
        assert trained < 0.9 * base_loss
        with network.off():
            assert float(functional.mse_loss(net(x), y)) == base_loss
        assert float(functional.mse_loss(net(x), y)) == trained


@pytest.mark.parametrize("full", [False, True], ids=["diagonal", "full"])
def test_a_file_is_read_back_on_its_base_and_refused_on_another(tmp_path: Path, full: bool) -> None:
    net, x = model(), torch.randn(2, 3, 4, 4)
    network = attach(net, k=6, full=full)
    train_a_little(network)
    network.save(tmp_path / "a.safetensors", dtype=torch.float32)
    expected = net(x)
    again = model()
    fresh = attach(again, k=6, full=full)
    assert fresh.load(tmp_path / "a.safetensors").loaded == 3
    torch.testing.assert_close(again(x), expected, rtol=1e-4, atol=1e-5)

    torch.manual_seed(9)
    other = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(8 * 16, 10), nn.Linear(10, 4))
    strange = attach(nn.Sequential(other[0], nn.SiLU(), nn.Flatten(), other[1], nn.SiLU(), other[2]), k=6, full=full)
    with pytest.raises(BaseMismatch, match="off"):
        strange.load(tmp_path / "a.safetensors")
    assert all(not p.any() for p in strange.parameters()), "a refused file changes nothing"
    with pytest.raises(WouldOverwrite):
        network.save(tmp_path / "a.safetensors")
    with pytest.raises(LoraxError, match=r"k = 6"):
        attach(model(), k=3, full=full).load(tmp_path / "a.safetensors")


def test_wanted_chooses_and_bad_input_is_refused() -> None:
    assert list(attach(model(), k=2, wanted=lambda path, layer: path == "5").modules_by_name) == ["lorax_5"]
    with pytest.raises(LoraxError, match="no layer"):
        attach(model(), k=2, wanted=lambda path, layer: False)
    with pytest.raises(LoraxError, match="at least 1"):
        attach(model(), k=0)
    with pytest.raises(LoraxError, match="without groups"):
        Network({"a": nn.Conv2d(4, 4, 3, groups=2)}, 2)


def test_norms_are_clamped() -> None:
    network = put_on(nn.Linear(12, 20))
    train_a_little(network)
    before = float(torch.linalg.matrix_norm(delta_of(network)))
    assert network.clamp_norms(before / 2) == pytest.approx([before], rel=1e-4)
    assert float(torch.linalg.matrix_norm(delta_of(network))) == pytest.approx(before / 2, rel=1e-4)


def test_the_cheaper_form_is_chosen_and_never_merged_in_half_precision() -> None:
    assert choose_form(320, 320, 320, 4096, torch.float32) == "merged"
    assert choose_form(1280, 1280, 320, 4096, torch.float32) == "factored"
    assert choose_form(320, 320, 320, 4096, torch.bfloat16) == "factored"
    assert choose_form(320, 320, 320, 8, torch.float32) == "factored", "few tokens do not pay for forming the delta"
    assert merged_cost(320, 320, 320, 4096) < factored_cost(320, 320, 320, 4096)


def test_merging_in_half_precision_would_lose_the_delta() -> None:
    """Why `choose_form` says so: at σ = 0.01 a merged bf16 weight is off by more than a tenth of the delta."""
    torch.manual_seed(0)
    layer, x = nn.Linear(64, 64, bias=False).bfloat16(), torch.randn(128, 64).bfloat16()
    results: dict[str, float] = {}
    for form in ("factored", "merged"):
        base = layer(x)
        network = put_on(layer, 32, form=form)
        with torch.no_grad():
            next(network.parameters()).fill_(0.01)
        exact = functional.linear(x.float(), delta_of(network))
        W = layer.weight.float()
        adapter = next(iter(network.modules_by_name.values()))
        used = (layer.weight + adapter._delta(*adapter._bases(x.device, torch.bfloat16))).float() - W
        delta = functional.linear(x.float(), used) if form == "merged" else adapter._factored(x, *adapter._bases(x.device, x.dtype)).float()
        results[form] = float(((delta - exact).norm() / exact.norm()).detach())
        network.take_off()
        assert torch.equal(layer(x), base)
    assert results["factored"] < 0.02
    assert results["merged"] > 0.1


@pytest.mark.parametrize("full", [False, True], ids=["diagonal", "full"])
def test_autocast_and_casting_the_model_later(full: bool) -> None:
    layer, x = nn.Linear(16, 24), torch.randn(9, 16)
    network = put_on(layer, full=full)
    train_a_little(network)
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        half = layer(x)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, rtol=0.05, atol=0.05)
    half.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in network.parameters())
    layer.double()
    torch.testing.assert_close(layer(x.double()).float(), exact, rtol=0.05, atol=0.05)


def test_factors_are_balanced_and_exact() -> None:
    network = put_on(nn.Linear(12, 20), full=True)
    train_a_little(network)
    adapter = next(iter(network.modules_by_name.values()))
    factors = adapter.factors()
    assert isinstance(factors, Factors)
    basis = adapter.basis()
    torch.testing.assert_close(factors.dense(), basis.U @ adapter.sigma.detach() @ basis.V.T, rtol=1e-4, atol=1e-5)
