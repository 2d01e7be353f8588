"""What is no base model of ours, or a damaged one: one line that says what it is and what to do."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from converter.samples import TINY, sample_checkpoint
from lorax.archs import by_name
from lorax.archs.foreign import SDXL_REFINER
from lorax.checkpoint import open_checkpoint
from lorax.errors import FileError, LoraxError, MalformedCheckpoint, MalformedFile, UnknownFormat
from lorax.layers import Component, LayerId
from lorax.safefile import write_safetensors
from lorax.structure import TextStructure

UNET = "model.diffusion_model."
TE = "cond_stage_model.transformer.text_model."
Q = LayerId(Component.UNET, "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q")
Q_NAME = f"{UNET}input_blocks.4.1.transformer_blocks.0.attn1.to_q.weight"


@lru_cache(maxsize=2)
def sample(name: str = "bk-sdm-tiny") -> dict[str, Tensor]:
    return sample_checkpoint(by_name(name), widths=TINY)


def refused(tmp_path: Path, tensors: dict[str, Tensor], error: type[LoraxError], match: str) -> None:
    write_safetensors(tmp_path / "base.safetensors", tensors, {})
    with pytest.raises(error, match=match) as caught, open_checkpoint(tmp_path / "base.safetensors"):
        pass
    assert str(caught.value).startswith(f"'{tmp_path / 'base.safetensors'}' ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        (["lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", "x.alpha"], "is an adapter"),
        (["unet.down_blocks.0.attentions.0.proj_in.lora_A.weight"], "is an adapter"),
        (["lora_te_text_model_encoder_layers_0_mlp_fc1.hada_w1_a"], "is an adapter"),
        (["first_stage_model.decoder.conv_in.weight", "first_stage_model.encoder.conv_in.weight"], "is a VAE"),
        (["decoder.mid.block_1.conv1.weight", "encoder.conv_in.weight"], "is a VAE"),
        (["emb_params"], "is a textual-inversion embedding"),
        (["clip_l", "clip_g"], "is a textual-inversion embedding"),
        (["model.diffusion_model.double_blocks.0.img_attn.qkv.weight"], "is Flux"),
        (["single_transformer_blocks.0.attn.to_q.weight"], "is Flux"),
        (["model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"], "is Stable Diffusion 3"),
        (["control_model.input_hint_block.0.weight"], "is a ControlNet"),
        (["foo.bar", "spam"], "is not a model that we know"),
    ],
)
def test_files_that_are_something_else(keys: list[str], match: str, tmp_path: Path) -> None:
    refused(tmp_path, {key: torch.zeros(2, 2) for key in keys}, UnknownFormat, f"{match}.*expected a checkpoint of Stable Diffusion")


def test_a_text_encoder_without_a_unet(tmp_path: Path) -> None:
    tensors = {name: t for name, t in sample().items() if not name.startswith(UNET)}
    refused(tmp_path, tensors, UnknownFormat, r"no UNet; give both, joined by '\+'")


def test_the_refiner_and_unclip_are_named(tmp_path: Path) -> None:
    base = by_name("sdxl")
    refiner = base.with_parts(SDXL_REFINER, ((Component.TE2, TextStructure("openclip", 32)),))
    tensors = sample_checkpoint(refiner, widths=TINY)
    tensors = {name.replace("embedders.1", "embedders.0"): t for name, t in tensors.items()}
    refused(tmp_path, tensors, UnknownFormat, "is the SDXL refiner; adapters are made for the SDXL base")
    unclip = sample("sd2") | {f"{UNET}label_emb.0.{i}.weight": torch.zeros(2, 2) for i in (0, 2)}
    (tmp_path / "base.safetensors").unlink()
    refused(tmp_path, unclip, UnknownFormat, "is SD2 unCLIP")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda t: t.update({Q_NAME: torch.zeros(16, 15)}),
            r"contradicts.*15 against 16 \(stream\)",
        ),
        (lambda t: t.update({Q_NAME: torch.zeros(16)}), r"of shape \[16\], but a linear weight has 2 sizes"),
        (lambda t: t.update({Q_NAME: torch.zeros(16, 16, 1, 1)}), r"of shape \[16, 16, 1, 1\], but a linear weight has 2 sizes"),
        (
            lambda t: t.update({f"{UNET}out.2.bias": torch.zeros(3)}),
            r"out\.2\.bias' \[3\] beside a weight with 4 rows",
        ),
        (lambda t: t.update({f"{UNET}out.2.weight": torch.zeros(4, 8, 3, 3).to(torch.int8)}), "as I8: it is quantised"),
        (lambda t: t.pop(Q_NAME), r"lacks 1 weights of its UNet, the first is unet\.down_blocks\.1\.attentions\.0"),
        (lambda t: t.update({f"{UNET}input_blocks.1.1.proj_in.weight": torch.zeros(8, 8)}), "has proj_in of both kinds"),
        (lambda t: [t.pop(n) for n in list(t) if ".input_blocks.4." in n], "a UNet level without residual blocks"),
    ],
)
def test_damaged_models(change: Callable[[dict[str, Tensor]], object], match: str, tmp_path: Path) -> None:
    tensors = dict(sample())
    change(tensors)
    refused(tmp_path, tensors, MalformedCheckpoint, match)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_found_when_read(value: float, tmp_path: Path) -> None:
    tensors = dict(sample())
    tensors[Q_NAME] = tensors[Q_NAME].clone()
    tensors[Q_NAME][3, 2] = value
    write_safetensors(tmp_path / "base.safetensors", tensors, {})
    with open_checkpoint(tmp_path / "base.safetensors") as base:
        with pytest.raises(MalformedCheckpoint, match=f"'{Q_NAME}' has 1 values that are NaN or infinite"):
            base.read(base.layer(Q))
        with pytest.raises(UnknownFormat, match=r"has no layer unet\.down_blocks\.1.*Did you mean"):
            base.layer(LayerId(Component.UNET, Q.path + "x"))


def test_one_network_given_twice(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_safetensors(tmp_path / f"{name}.safetensors", sample(), {})
    spec = f"{tmp_path / 'a.safetensors'}+{tmp_path / 'b.safetensors'}"
    with pytest.raises(MalformedCheckpoint, match="has te1 twice, in"):
        open_checkpoint(spec)


def test_more_text_encoders_than_the_family_has(tmp_path: Path) -> None:
    unet = {n: t for n, t in sample().items() if n.startswith(UNET)}
    text = {f"text_model.{n.removeprefix(TE)}": t for n, t in sample().items() if n.startswith(TE)}
    write_safetensors(tmp_path / "unet.safetensors", unet, {})
    for name in ("a", "b"):
        write_safetensors(tmp_path / f"{name}.safetensors", text, {})
    with pytest.raises(MalformedCheckpoint, match="has 2 text encoders where sd1 has room for 1"):
        open_checkpoint("+".join(str(tmp_path / f"{n}.safetensors") for n in ("unet", "a", "b")))


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="does not exist"):
        open_checkpoint(tmp_path / "none.safetensors")
    with pytest.raises(FileError, match=r"'te1' in '.*' does not exist"):
        open_checkpoint(f"{tmp_path}+te1")
    with pytest.raises(UnknownFormat, match="is empty; expected a file, or a diffusers folder"):
        open_checkpoint(tmp_path)
    (tmp_path / "unet").mkdir()
    with pytest.raises(FileError, match="has no weights"):
        open_checkpoint(tmp_path)
    (tmp_path / "unet" / "diffusion_pytorch_model-00001-of-00002.safetensors").write_bytes(b"x")
    with pytest.raises(FileError, match=r"shards such as .* but no index\.json"):
        open_checkpoint(tmp_path)


def test_a_cut_file(tmp_path: Path) -> None:
    path = tmp_path / "base.safetensors"
    write_safetensors(path, sample(), {})
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(MalformedFile, match="is cut short"):
        open_checkpoint(path)
