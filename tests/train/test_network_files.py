"""Networks on live diffusion models: names, targets, files, sizes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from lorax.archs import by_name
from lorax.checkpoint import open_checkpoint
from lorax.errors import BaseMismatch, LoraxError, UnknownFormat
from lorax.formats import read_adapter, write_native
from lorax.formats.fingerprint import FingerprintCheck
from lorax.layers import Component
from lorax.linalg import flatten_weight
from lorax.train import Network
from lorax.train.targets import chosen_layers, is_wanted, live_arch, live_layers
from tests.train.pipelines import Live, base_file, live
from tests.train.test_layer import train_a_little

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
PAPER = {"sd1": 82_000, "sdxl": 358_000, "ssd-1b": 174_000}
"""Bytes of a diagonal file at k = 320, METHOD.md"""


def on(model: Live, k: int = 6, target: str = "attn", **kwargs: object) -> Network:
    layers = chosen_layers(model.arch, live_layers(model.arch, model.unet, model.text_encoders), target)
    network = Network(layers, k, arch=model.arch, **kwargs)  # type: ignore[arg-type]
    network.put_on()
    return network


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl", "ssd-1b"])
def test_the_architecture_of_live_networks_is_known(name: str) -> None:
    model = live(name)
    found = live_arch(model.unet, model.text_encoders)
    assert found.name == name
    assert found.components == model.arch.components
    layers = live_layers(found, model.unet, model.text_encoders)
    assert layers.keys() == set(found.specs()), "every layer has its module"


@pytest.mark.parametrize("name", ["sd1", "sdxl"])
@pytest.mark.parametrize("full", [False, True], ids=["diagonal", "full"])
def test_the_file_gives_the_trained_delta_on_its_base(tmp_path: Path, name: str, full: bool) -> None:
    model = live(name)
    network = on(model, full=full)
    train_a_little(network)
    file = tmp_path / "a.safetensors"
    network.save(file, {"ss_output_name": "a"}, torch.float32)
    with open_checkpoint(base_file(tmp_path / "base.safetensors", name)) as base:
        adapter = read_adapter(file, base.arch)
        assert adapter.native is not None
        assert (adapter.native.k, adapter.native.diagonal, adapter.native.self_contained) == (6, not full, full)
        assert adapter.metadata["ss_output_name"] == "a"
        assert not adapter.unmatched
        assert len(adapter.modules) == len(network.modules_by_name)
        live_modules = live_layers(model.arch, model.unet, model.text_encoders)
        by_layer = {module.layer: module for module in network.modules_by_name.values()}
        check = FingerprintCheck(adapter)
        for layer, module in adapter.modules.items():
            weight = flatten_weight(base.read(base.layers[layer]))
            delta = module.delta(weight)
            torch.testing.assert_close(delta, by_layer[live_modules[layer]].factors().dense(), rtol=1e-3, atol=2e-4)
            check.add(layer, delta)
        check.require()


@pytest.mark.parametrize("kind", ["sigma", "self-contained", "full"])
def test_training_goes_on_from_a_file_on_its_own_base_only(tmp_path: Path, kind: str) -> None:
    options = {"full": kind == "full", "self_contained": kind != "sigma"}
    network = on(live("sd1"), **options)
    train_a_little(network)
    network.save(tmp_path / "a.safetensors")
    again = on(live("sd1"), **options)
    assert str(again.load(tmp_path / "a.safetensors")) == f"{len(network.modules_by_name)} modules loaded"
    for a, b in zip(network.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-3, atol=2e-3)
    other = on(live("sd1", seed=5), **options)
    with pytest.raises(BaseMismatch, match="off"):
        other.load(tmp_path / "a.safetensors")
    assert all(not p.any() for p in other.parameters())


def test_an_ordinary_lora_is_no_start(tmp_path: Path) -> None:
    network = on(live("sd1"), self_contained=True)
    train_a_little(network)
    network.save(tmp_path / "a.safetensors")
    from lorax.safefile import open_tensors, write_safetensors

    with open_tensors(tmp_path / "a.safetensors") as file:
        write_safetensors(tmp_path / "plain.safetensors", {n: file.read(n).clone() for n in file.tensors}, {})
    with pytest.raises(UnknownFormat, match="to-lorax"):
        network.load(tmp_path / "plain.safetensors")


def test_targets() -> None:
    model = live("sd1")
    layers = live_layers(model.arch, model.unet, model.text_encoders)
    unet_only = {i: m for i, m in layers.items() if i.component == Component.UNET}

    def count(target: str, *exclude: str) -> int:
        return len(chosen_layers(model.arch, unet_only, target, exclude))

    assert count("attn") == 128
    assert count("attn+ff") == 160
    assert count("linear") == 160 + 22 + 2, "and 22 time projections, 2 time embeddings"
    assert count("conv") == 98
    assert count("attn", "unet.mid_block.*", "*.to_k") == 128 - 8 - 30
    assert len(chosen_layers(model.arch, layers, "attn")) == 128 + 48
    with pytest.raises(LoraxError, match="Did you mean 'attn'"):
        count("atn")
    with pytest.raises(LoraxError, match="excludes no layer"):
        count("attn", "unet.nothing.*")
    with pytest.raises(LoraxError, match="leaves no layer"):
        count("attn", "unet.*")


@pytest.mark.parametrize("name", ["sd1", "sdxl", "ssd-1b"])
def test_sizes_at_true_width_are_those_of_the_paper(tmp_path: Path, name: str) -> None:
    arch = by_name(name)
    layers = [s.id for s in arch.layers() if s.id.component == Component.UNET and is_wanted(s, frozenset({"attn"}))]
    zero = (0.0, 0.0, 0.0, 0.0)
    file = tmp_path / "a.safetensors"
    from lorax.adapter import BaseHint

    sigmas = {i: torch.zeros(320) for i in layers}
    write_native(file, sigmas, arch, fingerprints=dict.fromkeys(layers, zero), k=320, base=BaseHint(), metadata={})
    data = len(layers) * 320 * 2
    assert abs(data - PAPER[name]) < 500
    header = int.from_bytes(file.read_bytes()[:8], "little")
    assert file.stat().st_size == 8 + header + data
    assert header < 250 * len(layers), "names and fingerprints"


def test_no_name_is_made_up() -> None:
    model = live("sdxl")
    names = chosen_layers(model.arch, live_layers(model.arch, model.unet, model.text_encoders), "attn")
    assert all(re.match(r"lora_(unet_(input|middle|output)_blocks?_|te[12]_text_model_)", n) for n in names)
