from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lorax.archs import by_name
from lorax.digest import sshs_hashes
from lorax.errors import MalformedAdapter, WouldOverwrite
from lorax.formats import read_adapter, write_adapter
from lorax.formats.writing import balanced
from lorax.layers import Component, LayerId
from lorax.linalg import Factors
from tests.formats.made import layer_shapes, random_factors

ARCHS = ["sd1", "bk-sdm-base", "sd2", "sdxl", "ssd-1b"]
DELTA = {"rtol": 5e-3, "atol": 2e-2}


@pytest.mark.parametrize("format", ["kohya", "peft"])
@pytest.mark.parametrize("name", ARCHS)
def test_what_is_written_is_read_and_written_to_the_same_bytes(tmp_path: Path, name: str, format: str) -> None:
    arch, shapes = by_name(name), layer_shapes(name)
    modules = random_factors(shapes, (2, 5, 3))
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    write_adapter(one, modules, arch, shapes=shapes, format=format, metadata={"ss_v2": "False"})
    adapter = read_adapter(one, arch)
    assert (adapter.format, adapter.family, adapter.unmatched) == (format, arch.family, ())
    assert adapter.modules.keys() == modules.keys()
    for layer, delta in modules.items():
        torch.testing.assert_close(adapter.modules[layer].delta(), delta.dense(), **DELTA)
        assert adapter.modules[layer].shape == shapes[layer]
    again = {layer: m.factors() for layer, m in adapter.modules.items()}
    write_adapter(two, again, arch, shapes=shapes, format=format, metadata=adapter.metadata)
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("size", [1e-6, 1e-3, 1.0, 1e3])
@pytest.mark.parametrize("lopsided", [1e-5, 1.0, 1e5])
def test_fp16_holds_every_delta(tmp_path: Path, size: float, lopsided: float) -> None:
    shapes = layer_shapes("sd1", "mid_block")
    modules = {i: Factors(f.up * size * lopsided, f.down / lopsided) for i, f in random_factors(shapes).items()}
    write_adapter(tmp_path / "a.safetensors", modules, by_name("sd1"), shapes=shapes, metadata={})
    for layer, m in read_adapter(tmp_path / "a.safetensors").modules.items():
        torch.testing.assert_close(m.delta() / size, modules[layer].dense() / size, **DELTA)


def test_balancing_is_exact_and_done_once() -> None:
    up, down = torch.randn(6, 4) * torch.tensor([1e-4, 1.0, 1e4, 0.0]), torch.randn(4, 5)
    down[2] = 0
    once = balanced(Factors(up, down))
    assert torch.equal(once.dense(), up @ down)
    twice = balanced(once)
    assert torch.equal(twice.up, once.up)
    assert torch.equal(twice.down, once.down)


def test_only_factors_and_alpha_are_written(tmp_path: Path) -> None:
    shapes = layer_shapes("sdxl", "1.attentions.0.proj_in") | layer_shapes("sdxl", "1.resnets.0.conv1")
    modules = random_factors(shapes)
    write_adapter(tmp_path / "a.safetensors", modules, by_name("sdxl"), shapes=shapes, metadata={})
    tensors = load_file(tmp_path / "a.safetensors")
    metadata = read_adapter(tmp_path / "a.safetensors").metadata
    assert {key.split(".", 1)[1] for key in tensors} == {"lora_down.weight", "lora_up.weight", "alpha"}
    assert all(t.dtype == torch.float16 for t in tensors.values())
    name = "lora_unet_input_blocks_4_0_in_layers_2"
    assert tensors[f"{name}.lora_down.weight"].shape == (3, 8, 3, 3)
    assert tensors[f"{name}.lora_up.weight"].shape == (12, 3, 1, 1)
    assert tensors[f"{name}.alpha"] == 3
    assert (metadata["sshs_model_hash"], metadata["sshs_legacy_hash"]) == sshs_hashes(tensors, {})


def test_hashes_of_another_file_are_never_kept(tmp_path: Path) -> None:
    shapes = layer_shapes("sd1", "mid_block.attentions.0.proj_in")
    stale = {"sshs_model_hash": "stale", "sshs_legacy_hash": "stale"}
    write_adapter(tmp_path / "a.safetensors", random_factors(shapes), by_name("sd1"), shapes=shapes, metadata=stale)
    assert "stale" not in read_adapter(tmp_path / "a.safetensors").metadata.values()


def test_alpha_is_the_rank_of_each_component(tmp_path: Path) -> None:
    shapes = layer_shapes("sd1", "attn1.to_q") | layer_shapes("sd1", "self_attn.q_proj")
    modules = random_factors(shapes)
    modules = {i: (Factors(f.up[:, :2], f.down[:2]) if i.component == Component.TE1 else f) for i, f in modules.items()}
    write_adapter(tmp_path / "a.safetensors", modules, by_name("sd1"), shapes=shapes, metadata={})
    alphas = {key.split("_")[1]: float(t) for key, t in load_file(tmp_path / "a.safetensors").items() if key.endswith("alpha")}
    assert alphas == {"unet": 3.0, "te": 2.0}


@pytest.mark.parametrize("format", ["kohya", "peft"])
def test_differing_ranks_share_one_alpha(tmp_path: Path, format: str) -> None:
    """diffusers reads attention layers of kohya files with one alpha for all, and older ones those of PEFT files with one rank."""
    shapes = layer_shapes("sd1", "attn1")
    modules = random_factors(shapes, (1, 4))
    write_adapter(tmp_path / "a.safetensors", modules, by_name("sd1"), shapes=shapes, format=format, metadata={})
    tensors = load_file(tmp_path / "a.safetensors")
    if format == "kohya":
        assert {float(t) for key, t in tensors.items() if key.endswith("alpha")} == {4.0}
    else:
        assert {t.shape[0] for key, t in tensors.items() if "lora_A" in key} == {4}
    for layer, m in read_adapter(tmp_path / "a.safetensors").modules.items():
        torch.testing.assert_close(m.delta(), modules[layer].dense(), **DELTA)


def test_nothing_to_write(tmp_path: Path) -> None:
    layer = LayerId(Component.UNET, "conv_in")
    empty = {layer: Factors(torch.zeros(12, 0), torch.zeros(0, 72))}
    with pytest.raises(MalformedAdapter, match="nothing to write"):
        write_adapter(tmp_path / "a.safetensors", empty, by_name("sd1"), shapes={layer: (12, 8, 3, 3)}, metadata={})
    assert not list(tmp_path.iterdir())


def test_what_fp16_cannot_hold_is_said(tmp_path: Path) -> None:
    layer = LayerId(Component.UNET, "conv_in")
    huge = {layer: Factors(torch.full((12, 1), 1e9), torch.full((1, 72), 1e9))}
    with pytest.raises(MalformedAdapter, match="float16 cannot hold"):
        write_adapter(tmp_path / "a.safetensors", huge, by_name("sd1"), shapes={layer: (12, 8, 3, 3)}, metadata={})
    with pytest.raises(MalformedAdapter, match=r"\[12, 72\] does not fit a weight of \[12, 9\]"):
        write_adapter(tmp_path / "a.safetensors", huge, by_name("sd1"), shapes={layer: (12, 9)}, metadata={})
    assert not list(tmp_path.iterdir())


def test_existing_files_are_kept(tmp_path: Path) -> None:
    shapes = layer_shapes("sd1", "mid_block.attentions.0.proj_in")
    path = tmp_path / "a.safetensors"
    path.write_text("mine")
    with pytest.raises(WouldOverwrite):
        write_adapter(path, random_factors(shapes), by_name("sd1"), shapes=shapes, metadata={})
    assert path.read_text() == "mine"
    write_adapter(path, random_factors(shapes), by_name("sd1"), shapes=shapes, metadata={}, overwrite=True)
    assert read_adapter(path).modules
