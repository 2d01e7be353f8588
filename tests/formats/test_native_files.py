from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lorax.adapter import Adapter, BaseHint, LowRank, Spectral
from lorax.archs import by_name, kohya_name
from lorax.errors import BaseMismatch, MalformedAdapter, SourceNeeded, UnknownFormat
from lorax.formats import FingerprintCheck, fingerprint, native_metadata, read_adapter, write_native, write_self_contained
from lorax.formats.fingerprint import relative_error, signs
from lorax.formats.native import sigma_tensors
from lorax.layers import LayerId
from lorax.linalg import Factors
from lorax.safefile import open_tensors
from lorax.spectral import compute_basis
from tests.formats.made import layer_shapes

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
BASE = BaseHint("some base", "ab" * 32, "01234567", "cd" * 32)
K = 6


def base_weights(seed: int = 0) -> dict[LayerId, Tensor]:
    g = torch.Generator().manual_seed(seed)
    shapes = {i: s for i, s in layer_shapes("sd1", "attentions.0.transformer_blocks.0.attn").items() if i.path.endswith(ATTENTION)}
    return {layer: torch.randn(shape, generator=g) for layer, shape in shapes.items()}


def sigmas(weights: dict[LayerId, Tensor]) -> dict[LayerId, Tensor]:
    g = torch.Generator().manual_seed(9)
    return {layer: torch.randn(K, generator=g).half() for layer in weights}


def deltas(weights: dict[LayerId, Tensor]) -> dict[LayerId, Factors]:
    return {layer: Spectral(s).on(compute_basis(weights[layer], K)) for layer, s in sigmas(weights).items()}


def written(path: Path, weights: dict[LayerId, Tensor]) -> Adapter:
    prints = {layer: fingerprint(f) for layer, f in deltas(weights).items()}
    write_native(path, sigmas(weights), by_name("sd1"), fingerprints=prints, k=K, base=BASE, metadata={"ss_v2": "False"})
    return read_adapter(path)


def checked(adapter: Adapter, weights: dict[LayerId, Tensor]) -> FingerprintCheck:
    check = FingerprintCheck(adapter)
    for layer, module in adapter.modules.items():
        check.add(layer, module.delta(weights[layer]))
    return check


def test_sigma_file_comes_back(tmp_path: Path) -> None:
    weights = base_weights()
    adapter = written(tmp_path / "n.safetensors", weights)
    assert adapter.format == "lorax"
    assert adapter.base == BASE
    assert adapter.needs_base
    assert adapter.native is not None
    assert (adapter.native.k, adapter.native.diagonal, adapter.native.self_contained) == (K, True, False)
    assert adapter.modules.keys() == adapter.native.fingerprints.keys() == weights.keys()
    for layer, f in deltas(weights).items():
        torch.testing.assert_close(adapter.modules[layer].delta(weights[layer]), f.dense())
        assert adapter.modules[layer].factors() is None
    check = checked(adapter, weights)
    check.require()
    assert check.mean_error < 1e-5
    with pytest.raises(SourceNeeded):
        next(iter(adapter.modules.values())).delta()


def test_sigma_file_has_a_golden_header(tmp_path: Path) -> None:
    weights = dict(list(base_weights().items())[:1])
    written(tmp_path / "n.safetensors", weights)
    with open_tensors(tmp_path / "n.safetensors") as file:
        assert {(t.name, t.dtype, t.shape) for t in file.tensors.values()} == {
            ("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lorax_sigma", "F16", (K,))
        }
        metadata = dict(file.metadata)
    assert {"lorax.fingerprints", "sshs_model_hash", "sshs_legacy_hash"} <= metadata.keys()
    assert len(base64.b64decode(metadata.pop("lorax.fingerprints"))) == 16
    assert {k: v for k, v in metadata.items() if k.startswith("lorax.")} == {
        "lorax.format_version": "1",
        "lorax.k": "6",
        "lorax.kind": "diagonal",
        "lorax.self_contained": "false",
        "lorax.base_name": "some base",
        "lorax.base_sha256": "ab" * 32,
        "lorax.base_autov1": "01234567",
        "lorax.base_digest": "cd" * 32,
    }


def test_copies_of_the_base_are_told_from_other_bases(tmp_path: Path) -> None:
    weights = base_weights()
    adapter = written(tmp_path / "n.safetensors", weights)
    checked(adapter, {i: w + 1e-4 * torch.randn_like(w) for i, w in weights.items()}).require()
    for stranger in (base_weights(1), {i: w + 0.1 * torch.randn_like(w) for i, w in weights.items()}):
        check = checked(adapter, stranger)
        with pytest.raises(BaseMismatch, match=r"trained on some base sha256 abababab.* \[01234567\]"):
            check.require()


def test_one_wrong_layer_is_found(tmp_path: Path) -> None:
    weights = base_weights()
    adapter = written(tmp_path / "n.safetensors", weights)
    layer = next(iter(weights))
    with pytest.raises(BaseMismatch, match=str(layer)):
        checked(adapter, {**weights, layer: base_weights(1)[layer]}).require()


def test_self_contained_file_is_an_ordinary_lora_as_well(tmp_path: Path) -> None:
    weights = base_weights()
    made = deltas(weights)
    path = tmp_path / "s.safetensors"
    shapes = {i: tuple(w.shape) for i, w in weights.items()}
    write_self_contained(path, made, by_name("sd1"), shapes=shapes, k=K, diagonal=True, base=BASE, metadata={})
    adapter = read_adapter(path)
    assert adapter.native is not None
    assert adapter.native.self_contained
    assert not adapter.needs_base
    with open_tensors(path) as file:
        assert {key.split(".", 1)[1] for key in file.tensors} == {"lora_down.weight", "lora_up.weight", "alpha"}
    for layer, f in made.items():
        module = adapter.modules[layer]
        assert isinstance(module, LowRank)
        torch.testing.assert_close(module.delta(), f.dense(), rtol=5e-3, atol=2e-3)
        assert relative_error(adapter.native.fingerprints[layer], module.factors()) < 1e-5
        basis = compute_basis(weights[layer], K)
        recovered = (basis.U.T @ module.delta() @ basis.V).diag()
        torch.testing.assert_close(recovered, sigmas(weights)[layer].float(), rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize(("name", "kilobytes"), [("sd1", 82), ("sdxl", 358), ("ssd-1b", 174)])
def test_sizes_at_true_size(name: str, kilobytes: int) -> None:
    """k = 320 in fp16 on the attention projections; every one of them is at least 320 wide."""
    layers = [spec.id for spec in by_name(name).layers() if spec.unit.kind == "transformer" and spec.role.split(".", 1)[-1] in ATTENTION]
    tensors = sigma_tensors({layer: torch.ones(320) for layer in layers}, by_name(name))
    assert round(sum(t.nbytes for t in tensors.values()) / 1000) == kilobytes


def test_signs_are_the_same_everywhere() -> None:
    """Golden values: a change here makes every LoRA-X file unreadable."""
    assert signs(0, 8, 0).tolist() == [-1.0, -1.0, -1.0, 1.0, 1.0, -1.0, -1.0, 1.0]
    text = "".join("+" if s > 0 else "-" for s in signs(3, 100, 1).tolist())
    assert text == "-++---++--++++-+-+++-+---+------++-+++-+-+--+-+-+-----+++-+-++++-++--+++-++-+--++-++--+-+++-+-+-+---"
    assert signs(0, 64, 0).tolist() != signs(0, 64, 1).tolist()
    assert abs(float(signs(1, 5120, 1).mean())) < 0.05


def test_signs_follow_their_definition() -> None:
    """The definition of docs/format.md in plain integers."""
    full = (1 << 64) - 1

    def mix(z: int) -> int:
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & full
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & full
        return z ^ (z >> 31)

    for probe, size, side in ((0, 8, 0), (3, 100, 1), (2, 2880, 1)):
        seed = mix(size * 256 + side * 16 + probe)
        word = [mix((seed + (i + 1) * 0x9E3779B97F4A7C15) & full) for i in range(size // 64 + 1)]
        assert signs(probe, size, side).tolist() == [-1.0 if word[n // 64] >> (n % 64) & 1 else 1.0 for n in range(size)]


def test_fingerprint_on_factors_is_that_of_the_matrix() -> None:
    f = Factors(torch.randn(20, 3), torch.randn(3, 33))
    np.testing.assert_allclose(fingerprint(f), fingerprint(f.dense()), rtol=1e-4)
    by_hand = [float((f.dense().double() * torch.outer(signs(j, 20, 0), signs(j, 33, 1))).sum()) for j in range(4)]
    np.testing.assert_allclose(fingerprint(f), by_hand, rtol=1e-4)


def test_relative_error_is_unbiased() -> None:
    torch.manual_seed(0)
    delta = torch.randn(64, 64)
    errors = []
    for _ in range(400):
        noise = torch.randn(64, 64)
        noise *= 0.01 * delta.norm() / noise.norm()
        errors.append(relative_error(fingerprint(delta), delta + noise) ** 2)
    assert np.mean(errors) == pytest.approx(1e-4, rel=0.15)
    assert relative_error((0.0, 0.0, 0.0, 0.0), torch.zeros(3, 3)) == 0.0
    assert relative_error((1.0, 0.0, 0.0, 0.0), torch.zeros(3, 3)) == float("inf")


BROKEN = [
    ({"lorax.format_version": None}, MalformedAdapter, "without 'lorax.format_version'"),
    ({"lorax.format_version": "2"}, UnknownFormat, "version '2'"),
    ({"lorax.k": "many"}, MalformedAdapter, "lorax.k 'many'"),
    ({"lorax.kind": "round"}, MalformedAdapter, "lorax.kind 'round'"),
    ({"lorax.kind": "full"}, MalformedAdapter, "comes with its factors"),
    ({"lorax.fingerprints": None}, MalformedAdapter, "0 bytes"),
    ({"lorax.fingerprints": "!"}, MalformedAdapter, "0 bytes"),
    ({"lorax.fingerprints": "AAAA"}, MalformedAdapter, "3 bytes"),
]


@pytest.mark.parametrize(("change", "error", "message"), BROKEN)
def test_broken_musts(tmp_path: Path, change: dict[str, str | None], error: type[Exception], message: str) -> None:
    arch, layer = by_name("sd1"), next(iter(base_weights()))
    metadata: dict[str, str | None] = dict(
        native_metadata(arch, {layer: (1.0, 2.0, 3.0, 4.0)}, k=K, diagonal=True, self_contained=False, base=BASE)
    )
    metadata |= change
    path = tmp_path / "n.safetensors"
    save_file({f"{kohya_name(arch, layer)}.lorax_sigma": torch.ones(K)}, path, {k: v for k, v in metadata.items() if v is not None})
    with pytest.raises(error, match=message):
        read_adapter(path)


def test_sigma_must_be_finite_vectors() -> None:
    layer = next(iter(base_weights()))
    for sigma in (torch.ones(2, 2), torch.tensor([1e9]), torch.tensor([float("nan")])):
        with pytest.raises(MalformedAdapter):
            sigma_tensors({layer: sigma}, by_name("sd1"))
