"""The sample models are real narrow models: diffusers and transformers load them whole, and both layouts hold the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from converter.samples import TINY, block_map, diffusers_config, pruned, relative, sample_checkpoint, text_config, write_diffusers
from lorax.archs import ARCHS, by_name
from lorax.layers import Component
from lorax.structure import Arch

pytestmark = pytest.mark.filterwarnings("ignore")  # third-party deprecations are not ours to fix


def inside(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


@pytest.mark.parametrize("arch", ARCHS, ids=lambda arch: arch.name)
def test_diffusers_loads_the_unet_whole(arch: Arch) -> None:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        model = UNet2DConditionModel(**diffusers_config(arch, TINY))
    loaded = model.load_state_dict(inside(sample_checkpoint(arch, "diffusers", TINY), "unet."), assign=True)
    assert not loaded.missing_keys
    assert not loaded.unexpected_keys


@pytest.mark.parametrize(("name", "component"), [("sd1", Component.TE1), ("sd2", Component.TE1), ("sdxl", Component.TE2)])
def test_transformers_loads_the_text_encoder_whole(name: str, component: Component) -> None:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    arch = by_name(name)
    with torch.device("meta"):
        model = CLIPTextModelWithProjection(CLIPTextConfig(**text_config(arch, component, TINY)))
    prefix = "text_encoder_2." if component == Component.TE2 else "text_encoder."
    tensors = inside(sample_checkpoint(arch, "diffusers", TINY), prefix)
    assert set(model.state_dict()) - set(tensors) <= {"text_projection.weight"}
    assert {key: t.shape for key, t in model.state_dict().items() if key in tensors} == {key: t.shape for key, t in tensors.items()}


@pytest.mark.parametrize("name", ["sd1", "ssd-1b"])
def test_both_layouts_hold_the_same_unet(name: str) -> None:
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    arch = by_name(name)
    converted = convert_ldm_unet_checkpoint(sample_checkpoint(arch, "single_file", TINY), diffusers_config(arch, TINY))
    tensors = inside(sample_checkpoint(arch, "diffusers", TINY), "unet.")
    assert set(converted) == set(tensors)
    assert all(torch.equal(tensor, tensors[key]) for key, tensor in converted.items())


def test_a_folder_of_a_sample_runs_in_diffusers(tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    arch = by_name("bk-sdm-small")
    write_diffusers(tmp_path, arch, sample_checkpoint(arch, "diffusers", TINY), TINY)
    unet = UNet2DConditionModel.from_pretrained(tmp_path / "unet")
    with torch.no_grad():
        out = unet(torch.ones(1, 4, 16, 16), 500, torch.ones(1, 77, TINY.context("sd1"))).sample
    assert out.shape == (1, 4, 16, 16)
    assert 0.01 < float(out.std()) < 100


def test_one_seed_one_model_and_another_seed_another() -> None:
    arch = by_name("bk-sdm-tiny")
    first, again, other = (sample_checkpoint(arch, widths=TINY, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    name = "model.diffusion_model.input_blocks.7.1.proj_in.weight"
    assert not torch.equal(first[name], other[name])


def test_a_relative_moves_by_its_noise_and_keeps_what_it_is_told() -> None:
    base = sample_checkpoint(by_name("bk-sdm-tiny"), widths=TINY, dtype=torch.float16)
    tuned = relative(base, noise=0.2, keep=("cond_stage_model.",))
    moved, kept = "model.diffusion_model.input_blocks.7.1.proj_in.weight", "cond_stage_model.transformer.text_model.final_layer_norm.weight"
    step = (tuned[moved].float() - base[moved].float()).norm() / base[moved].float().norm()
    assert float(step) == pytest.approx(0.2, rel=0.2)
    assert tuned[moved].dtype == torch.float16
    assert all(torch.equal(tuned[name], base[name]) for name in (kept, "betas", "alphas_cumprod"))


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("sdxl", "ssd-1b"),
        ("sdxl", "vega"),
        ("sdxl", "koala-700m"),
        ("sd1", "bk-sdm-base"),
        ("sd1", "bk-sdm-tiny"),
        ("sd2", "bk-sdm-v2-small"),
    ],
)
def test_a_pruned_model_is_a_whole_model_of_its_architecture(source: str, target: str) -> None:
    base, arch = sample_checkpoint(by_name(source), widths=TINY), by_name(target)
    cut, whole = pruned(base, by_name(source), arch), sample_checkpoint(arch, widths=TINY)
    assert {name: t.shape for name, t in cut.items()} == {name: t.shape for name, t in whole.items()}


def test_ssd_1b_keeps_the_planted_blocks() -> None:
    blocks = block_map(by_name("sdxl"), by_name("ssd-1b"))
    inner = "down_blocks.2.attentions.1.transformer_blocks"
    assert [blocks[f"{inner}.{i}"] for i in range(4)] == [f"{inner}.{i}" for i in (1, 2, 3, 7)]
    assert blocks["up_blocks.0.attentions.2.transformer_blocks.9"] == "up_blocks.0.attentions.2.transformer_blocks.9"
    assert blocks["up_blocks.1.attentions.1.transformer_blocks.0"] == "up_blocks.1.attentions.1.transformer_blocks.0"


def test_bk_sdm_keeps_first_and_last_blocks_of_the_up_path() -> None:
    blocks = block_map(by_name("sd1"), by_name("bk-sdm-tiny"))
    assert blocks["up_blocks.0.resnets.1"] == "up_blocks.1.resnets.2"
    assert blocks["down_blocks.1.attentions.0.transformer_blocks.0"] == "down_blocks.1.attentions.0.transformer_blocks.0"
