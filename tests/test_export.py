"""LoRA-X form and back: σ is recovered, what lies in the span is kept whole, and energies say what was lost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lorax.adapter import BaseHint, Spectral
from lorax.checkpoint import open_checkpoint
from lorax.errors import BaseMismatch, LoraxError
from lorax.export import export_adapter, to_lorax, to_sigma
from lorax.formats import fingerprint, read_adapter, write_adapter, write_native
from lorax.layers import LayerId
from lorax.linalg import flatten_weight
from lorax.spectral import compute_basis
from lorax.transfer.types import TransferSettings
from tests.families import Family, write_lora

K = 6


@pytest.fixture(scope="module")
def sigma_file(sd1: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A σ file on a few attention modules of the source."""
    path = tmp_path_factory.mktemp("export") / "native.safetensors"
    generator = torch.Generator().manual_seed(5)
    sigmas, prints = {}, {}
    with open_checkpoint(sd1["source"]) as base:
        chosen: list[LayerId] = [i for i in base.layers if "attn1.to_" in i.path][:6]
        for i in chosen:
            sigmas[i] = torch.randn(K, generator=generator).half()
            prints[i] = fingerprint(Spectral(sigmas[i]).on(compute_basis(flatten_weight(base.read(base.layers[i])), K)))
        write_native(path, sigmas, base.arch, fingerprints=prints, k=K, base=BaseHint(name=base.name), metadata={})
    return path


@pytest.fixture(scope="module")
def lora(sd1: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lora(tmp_path_factory.mktemp("export") / "style.safetensors", sd1)


def test_sigma_is_recovered_from_the_exported_lora(sd1: Family, sigma_file: Path, tmp_path: Path):
    plain = tmp_path / "plain.safetensors"
    with open_checkpoint(sd1["source"]) as base:
        native = read_adapter(sigma_file, base.arch)
        made = export_adapter(native, base, TransferSettings(out_energy=1.0))
        write_adapter(plain, made.modules, base.arch, shapes=made.shapes, metadata={}, dtype=torch.float32)
        again = to_sigma(read_adapter(plain, base.arch), base, K, torch.float32)
    assert made.energy_kept == pytest.approx(1, abs=1e-4)
    for i, sigma in again.sigmas.items():
        torch.testing.assert_close(sigma, native.modules[i].sigma.float(), rtol=1e-3, atol=1e-3)  # type: ignore[attr-defined]


def test_what_lies_in_the_span_is_kept_whole(sd1: Family, sigma_file: Path, tmp_path: Path):
    plain = tmp_path / "plain.safetensors"
    with open_checkpoint(sd1["source"]) as base:
        made = export_adapter(read_adapter(sigma_file, base.arch), base)
        write_adapter(plain, made.modules, base.arch, shapes=made.shapes, metadata={})
        inside = to_lorax(read_adapter(plain, base.arch), base, K)
    assert inside.energy_kept == pytest.approx(1, abs=1e-3)


def test_an_ordinary_lora_loses_energy_and_a_diagonal_more(sd1: Family, lora: Path):
    with open_checkpoint(sd1["source"]) as base:
        adapter = read_adapter(lora, base.arch)
        kept = [made.energy_kept for made in (to_lorax(adapter, base, K), to_sigma(adapter, base, K))]
        square = [
            c for c in to_lorax(adapter, base, 10_000).changes if base.layers[c.layer].out_features == base.layers[c.layer].in_features
        ]
    assert kept[0] is not None
    assert kept[1] is not None
    assert 0 < kept[1] < kept[0] < 1
    assert square
    assert all(c.energy_out == pytest.approx(c.energy_in, rel=1e-3) for c in square), "the whole space of a square weight holds everything"


def test_each_module_is_the_projection_on_its_own_base(sd1: Family, lora: Path):
    with open_checkpoint(sd1["source"]) as base:
        adapter = read_adapter(lora, base.arch)
        made = to_lorax(adapter, base, K)
        i = next(iter(made.modules))
        basis = compute_basis(flatten_weight(base.read(base.layers[i])), K)
    expected = basis.U @ basis.U.T @ adapter.modules[i].delta() @ basis.V @ basis.V.T
    torch.testing.assert_close(made.modules[i].dense(), expected, rtol=1e-3, atol=1e-6)


def test_a_sigma_file_needs_its_own_base(sd1: Family, sigma_file: Path):
    with open_checkpoint(sd1["fine"]) as other, pytest.raises(BaseMismatch, match="was trained on"):
        export_adapter(read_adapter(sigma_file, other.arch), other)


def test_a_lorax_file_is_not_converted_again(sd1: Family, sigma_file: Path):
    with open_checkpoint(sd1["source"]) as base, pytest.raises(LoraxError, match="already"):
        to_lorax(read_adapter(sigma_file, base.arch), base, K)


def test_another_family_is_refused(sdxl: Family, lora: Path):
    with open_checkpoint(sdxl["source"]) as base, pytest.raises(BaseMismatch, match="made for"):
        export_adapter(read_adapter(lora), base)
