"""The network module's side of sd-scripts' contract, on live networks; a real sd-scripts runs in test_sd_scripts.py."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lorax.checkpoint import open_checkpoint
from lorax.errors import BaseMismatch, LoraxError, UnknownFormat
from lorax.export import export_adapter
from lorax.formats import read_adapter
from lorax.train import kohya
from tests.train.pipelines import Live, base_file, live
from tests.train.test_layer import train_a_little

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAX_CACHE", str(tmp_path / "cache"))


def made(model: Live, text: bool = True, unet: bool = True, dim: int | None = 6, **kwargs: str) -> kohya.KohyaNetwork:
    encoders = model.text_encoders if len(model.text_encoders) > 1 else model.text_encoders[0]
    network = kohya.create_network(1.0, dim, 1.0, None, encoders, model.unet, neuron_dropout=None, dropout=None, **kwargs)
    network.apply_to(encoders, model.unet, text, unet)
    return network


def test_the_defaults_are_the_papers_on_what_sd_scripts_trains() -> None:
    network = made(live("sd1"), dim=None)
    assert network.k == 320
    assert len(network.modules_by_name) == 128 + 48
    assert {p.numel() for p in network.parameters()} == {8, 16, 24}, "cut to each layer's rank"
    assert len(made(live("sd1"), text=False).modules_by_name) == 128
    assert len(made(live("sd1"), unet=False).modules_by_name) == 48


@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_parameter_groups(name: str) -> None:
    network = made(live(name))
    groups, described = network.prepare_optimizer_params_with_multiple_te_lrs([1e-4, 2e-4], 3e-4, 9.0)
    rates = [group["lr"] for group in groups]
    assert described == (["textencoder", "unet"] if name == "sd1" else ["textencoder", "textencoder 2", "unet"])
    assert rates == ([1e-4, 3e-4] if name == "sd1" else [1e-4, 2e-4, 3e-4])
    assert sum(len(g["params"]) for g in groups) == len(network.get_trainable_params())
    assert [g["lr"] for g in network.prepare_optimizer_params(None, None, 5e-4)] == [5e-4] * len(groups)
    assert all("lr" not in g for g in network.prepare_optimizer_params(None, None))
    assert next(g["lr"] for g in network.prepare_optimizer_params([], 1e-3, 5e-4)) == 5e-4


def test_metadata_is_kept_and_ours_added_and_the_base_is_that_of_the_file(tmp_path: Path) -> None:
    base = base_file(tmp_path / "base.safetensors", "sd1")
    network = made(live("sd1"))
    train_a_little(network)
    said = {"ss_sd_model_name": "base.safetensors", "ss_new_sd_model_hash": "ab" * 32, "ss_output_name": "a", "ss_steps": 7}
    network.save_weights(str(tmp_path / "a.safetensors"), torch.float16, said)
    network.save_weights(str(tmp_path / "a.safetensors"), None, None)
    network.save_weights(str(tmp_path / "a.safetensors"), torch.bfloat16, said)
    adapter = read_adapter(tmp_path / "a.safetensors")
    assert adapter.metadata["ss_steps"] == "7"
    assert adapter.metadata["lorax.action"] == "train"
    assert adapter.metadata["lorax.base_name"] == "base.safetensors"
    assert len(adapter.metadata["sshs_model_hash"]) == 64
    with open_checkpoint(base) as checkpoint:
        assert len(export_adapter(adapter, checkpoint).modules) == 176


def test_networks_made_from_weights_load_and_merge(tmp_path: Path) -> None:
    model = live("sd1")
    network = made(model)
    train_a_little(network, size=0.1)
    file = str(tmp_path / "a.safetensors")
    network.save_weights(file, torch.float32, {})
    x, t, c = torch.randn(1, 4, 8, 8), torch.tensor([5]), torch.randn(1, 7, 8)
    expected = model.unet(x, t, c).sample

    again = live("sd1")
    fresh, _ = kohya.create_network_from_weights(1.0, file, None, again.text_encoders[0], again.unet)
    assert (fresh.k, len(fresh._layers)) == (6, 176)
    fresh.apply_to(again.text_encoders[0], again.unet)
    assert fresh.load_weights(file) == "176 modules loaded"
    torch.testing.assert_close(again.unet(x, t, c).sample, expected, rtol=1e-3, atol=1e-3)

    merged = live("sd1")
    merging, weights = kohya.create_network_from_weights(1.0, file, None, merged.text_encoders[0], merged.unet, for_inference=True)
    merging.merge_to(merged.text_encoders[0], merged.unet, weights, torch.float32, "cpu")
    torch.testing.assert_close(merged.unet(x, t, c).sample, expected, rtol=1e-3, atol=1e-3)

    other = live("sd1", seed=4)
    strange = made(other)
    with pytest.raises(BaseMismatch):
        strange.load_weights(file)


def test_norms_are_scaled() -> None:
    network = made(live("sd1"))
    train_a_little(network)
    scaled, mean, largest = network.apply_max_norm_regularization(0.5, "cpu")
    assert scaled > 0
    assert mean <= largest <= 0.5
    assert network.apply_max_norm_regularization(0.5001, "cpu")[0] == 0


def test_the_bases_of_a_rounded_model_are_those_of_its_file(tmp_path: Path) -> None:
    """A model loaded in bf16 has other singular vectors; the file written must fit the fp32 file."""
    base = base_file(tmp_path / "base.safetensors", "sd1")
    model = live("sd1")
    model.unet.to(torch.bfloat16)
    encoder = model.text_encoders[0]
    network = kohya.create_network(1.0, 6, 1.0, None, encoder, model.unet)
    network.prepare_network(SimpleNamespace(save_model_as="safetensors", pretrained_model_name_or_path=str(base), base_weights=None))
    network.apply_to(encoder, model.unet, False, True)
    train_a_little(network)
    network.save_weights(str(tmp_path / "a.safetensors"), torch.float16, {})
    with open_checkpoint(base) as checkpoint:
        export_adapter(read_adapter(tmp_path / "a.safetensors"), checkpoint)


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"targt": "attn"}, "Did you mean 'target'"),
        ({"target": "atn"}, "Did you mean 'attn'"),
        ({"kind": "diag"}, "Did you mean 'diagonal'"),
        ({"form": "merge"}, "Did you mean 'merged'"),
        ({"self_contained": "maybe"}, "true or false"),
        ({"module_dropout": "0.1"}, "no dropout"),
        ({"exclude": "unet.nothing"}, "excludes no layer"),
    ],
)
def test_bad_arguments_are_named(kwargs: dict[str, str], said: str) -> None:
    with pytest.raises(LoraxError, match=said):
        made(live("sd1"), **kwargs)


def test_a_base_of_another_family_is_named() -> None:
    class Transformer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.double_blocks = torch.nn.ModuleList([torch.nn.Linear(8, 8)])

    model = live("sd1")
    with pytest.raises(UnknownFormat, match="has a Transformer of another layout: give a base"):
        kohya.create_network(1.0, 6, 1.0, None, model.text_encoders, Transformer())
    with pytest.raises(UnknownFormat, match="has a Transformer as te1"):
        kohya.create_network(1.0, 6, 1.0, None, Transformer(), model.unet)


def test_other_bad_input() -> None:
    model = live("sd1")
    network = made(model, module_dropout="0", rank_dropout="0.0")
    with pytest.raises(LoraxError, match="safetensors"):
        network.prepare_network(SimpleNamespace(save_model_as="ckpt"))
    with pytest.raises(LoraxError, match="does not say which base"):
        kohya.create_network_from_weights(1.0, None, None, model.text_encoders, model.unet)
    with pytest.raises(LoraxError, match="only a network that was made from weights"):
        network.merge_to(None, None, {}, None, "cpu")
