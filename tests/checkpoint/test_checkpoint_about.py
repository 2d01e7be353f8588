"""What is told of a base beside its weights."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from converter.samples import TINY, Widths, sample_checkpoint, write_diffusers
from lorax.archs import by_name
from lorax.checkpoint import open_checkpoint
from lorax.layers import Component
from lorax.safefile import write_safetensors

UNET = "model.diffusion_model."


@lru_cache(maxsize=2)
def sample(name: str) -> dict[str, Tensor]:
    return sample_checkpoint(by_name(name), widths=TINY)


def write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    write_safetensors(path, tensors, metadata or {})
    return path


@pytest.mark.parametrize(
    ("name", "marks", "metadata", "expected"),
    [
        ("sd1", (), {}, None),
        ("vega", ("v_pred", "ztsnr"), {}, "v"),
        ("vega", ("edm_mean", "edm_std"), {}, "edm"),
        ("vega", (), {"modelspec.prediction_type": "epsilon"}, "epsilon"),
        ("vega", (), {"modelspec.prediction_type": "v"}, "v"),
        ("vega", (), {"modelspec.prediction_type": "sorcery"}, None),
    ],
)
def test_prediction_type(name: str, marks: tuple[str, ...], metadata: dict[str, str], expected: str | None, tmp_path: Path) -> None:
    tensors = sample(name) | {mark: torch.zeros(0) for mark in marks}
    with open_checkpoint(write(tmp_path / "base.safetensors", tensors, metadata)) as base:
        assert base.prediction_type == expected
        assert not base.unused
        assert base.about.counted.get("that mark the kind of model", 0) == len(marks)


def test_sd2_that_predicts_v_is_told_by_its_weights(tmp_path: Path) -> None:
    """ComfyUI's test: the bias of the last block's norm1 spreads more."""
    tensors = dict(sample("sd2"))
    with open_checkpoint(write(tmp_path / "base.safetensors", tensors)) as base:
        assert (base.prediction_type, base.arch.base_model_version) == ("epsilon", "sd_v2")
        assert base.arch.modelspec_architecture == "stable-diffusion-v2-512"
    name = f"{UNET}output_blocks.11.1.transformer_blocks.0.norm1.bias"
    tensors[name] = tensors[name] * 20
    with open_checkpoint(write(tmp_path / "v.safetensors", tensors)) as base:
        assert (base.prediction_type, base.arch.name, base.arch.base_model_version) == ("v", "sd2", "sd_v2_v")
        assert base.arch.modelspec_architecture == "stable-diffusion-v2-768-v"


def test_a_folder_tells_it_by_its_scheduler(tmp_path: Path) -> None:
    arch = by_name("bk-sdm-v2-tiny")
    write_diffusers(tmp_path, arch, sample_checkpoint(arch, "diffusers", TINY), TINY)
    (tmp_path / "scheduler").mkdir()
    config = tmp_path / "scheduler" / "scheduler_config.json"
    for text, expected in ((json.dumps({"prediction_type": "v_prediction"}), "v"), ("[1]", None), ("{", None)):
        config.write_text(text)
        with open_checkpoint(tmp_path) as base:
            assert base.prediction_type == expected


def test_inpainting_takes_nine_channels(tmp_path: Path) -> None:
    widths = Widths(channels=TINY.channels, groups=TINY.groups, text1=8, text2=12, vocabulary=16, in_channels=9)
    with open_checkpoint(write(tmp_path / "base.safetensors", sample_checkpoint(by_name("bk-sdm-tiny"), widths=widths))) as base:
        assert base.arch.name == "bk-sdm-tiny"
        assert base.notes == ("inpainting model: conv_in takes 9 channels",)


def test_an_unknown_pruning_is_noted(tmp_path: Path) -> None:
    tensors = {name: t for name, t in sample("sd1").items() if ".middle_block." not in name}
    with open_checkpoint(write(tmp_path / "base.safetensors", tensors)) as base:
        assert (base.arch.name, base.arch.family) == ("sd1-custom", "sd1")
        assert base.notes == ("Stable Diffusion 1.x, pruned to 15 transformer blocks: no named architecture has these blocks",)
        assert not [i for i in base.layers if "mid_block" in i.path]


def test_what_is_beside_the_layers_is_counted_or_named(tmp_path: Path) -> None:
    more = {
        "first_stage_model.decoder.conv_in.weight": torch.zeros(1),
        "first_stage_model.encoder.conv_in.weight": torch.zeros(1),
        "model_ema.decay": torch.zeros(()),
        "cond_stage_model.logit_scale": torch.zeros(()),
        "mystery.weight": torch.zeros(1),
        f"{UNET}input_blocks.1.0.strange.weight": torch.zeros(1),
    }
    with open_checkpoint(write(tmp_path / "base.safetensors", sample("sd1") | more)) as base:
        assert base.about.counted == {"of the VAE": 2, "of the EMA copy": 1, "of the noise schedule": 2, "beside the layers": 2}
        assert sorted(base.unused) == [f"{UNET}input_blocks.1.0.strange.weight", "mystery.weight"]


def test_a_text_encoder_with_a_hole_is_noted(tmp_path: Path) -> None:
    gone = "cond_stage_model.transformer.text_model.final_layer_norm.weight"
    tensors = {name: t for name, t in sample("sd1").items() if name != gone}
    with open_checkpoint(write(tmp_path / "base.safetensors", tensors)) as base:
        assert base.notes == ("the text encoder lacks te1.text_model.final_layer_norm",)


def test_sdxl_without_the_last_layer_of_clip_l(tmp_path: Path) -> None:
    """Some savers drop it, for it is never run."""
    tensors = {name: t for name, t in sample("vega").items() if "embedders.0.transformer.text_model.encoder.layers.11." not in name}
    with open_checkpoint(write(tmp_path / "base.safetensors", tensors)) as base:
        assert dict(base.arch.text)[Component.TE1].layers == 11
        assert not base.notes


def test_hashes_are_those_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "base.safetensors", sample("sd1"))
    with open_checkpoint(path) as base:
        hashes = base.hashes()
        assert hashes is not None
        assert hashes.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert hashes.autov1 == hashlib.sha256(path.read_bytes()[0x100000:0x110000]).hexdigest()[:8]
        assert base.hashes() is hashes


def test_closed_with_its_context(tmp_path: Path) -> None:
    path = write(tmp_path / "base.safetensors", sample("sd1"))
    with open_checkpoint(path) as base:
        file = base.file(Component.UNET)
    with pytest.raises(ValueError, match="closed"):
        file.read(next(iter(file.tensors)))
