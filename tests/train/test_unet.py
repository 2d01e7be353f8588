"""UNets of pruned single files, which diffusers alone takes for the unpruned ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.quality.layouts import vae_name, vae_value
from converter.samples import Widths, pruned, sample_checkpoint
from converter.samples.layouts import place
from lorax.archs import ARCHS, by_name
from lorax.checkpoint import open_checkpoint
from lorax.errors import LoraxError
from lorax.layers import Component
from lorax.safefile import open_tensors, write_safetensors
from lorax.train.distill import DistillSettings, distill

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install -e .[train]")

from lorax.train.unet import HEAD_WIDTH, HEADS, build_unet, is_pruned, unet_config
from tests.archs.test_arch_oracles import CONFIGS
from tests.train.pipelines import SPEAKING, diffusers_folder
from tests.train.test_distill import calm, write_lora

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")]

GENUINE = Widths(channels=(64, 128, 192, 192), groups=32, text1=8, text2=12, vocabulary=16)
"""The narrowest in which heads of 64 channels and groups of 32 have a place."""


def write_single(folder: Path, name: str, widths: Widths = GENUINE) -> Path:
    path = folder / f"{name}.safetensors"
    write_safetensors(path, sample_checkpoint(by_name(name), "single_file", widths), {})
    return path


def write_whole(path: Path, folder: Path, family: str, small: str, widths: Widths) -> Path:
    """A pruning of the model in `folder`, as one file with a VAE and text encoders."""
    arch = by_name(small)
    tensors = sample_checkpoint(arch, "single_file", widths)
    kept = pruned(calm(family, widths), by_name(family), arch, layout="diffusers")
    for spec in arch.layers():
        single, diffusers = (place(arch, spec, layout)[0].removesuffix("weight") for layout in ("single_file", "diffusers"))
        if spec.id.component == Component.UNET:
            tensors |= {f"{single}{end}": kept[f"{diffusers}{end}"] for end in ("weight", "bias") if f"{diffusers}{end}" in kept}
    with open_tensors(folder / "vae" / "diffusion_pytorch_model.safetensors") as vae:
        tensors |= {f"first_stage_model.{vae_name(n, 4)}": vae_value(n, vae.read(n)).contiguous() for n in vae.tensors}
    write_safetensors(path, tensors, {})
    return path


@pytest.mark.parametrize("name", [arch.name for arch in ARCHS])
def test_the_file_says_the_model_that_diffusers_builds_from_the_true_configuration(name: str, tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    with open_checkpoint(write_single(tmp_path, name)) as base:
        config, unet = unet_config(base), build_unet(base, torch.float32)
        true = {**CONFIGS[name], "block_out_channels": config["block_out_channels"], "cross_attention_dim": config["cross_attention_dim"]}
        true |= {
            key: config[key] for key in ("projection_class_embeddings_input_dim", "attention_head_dim") if key in config and key in true
        }
        with torch.device("meta"):
            expected = UNet2DConditionModel(**true)
        assert {n: tuple(t.shape) for n, t in unet.state_dict().items()} == {n: tuple(t.shape) for n, t in expected.state_dict().items()}
        heads = {(m.heads, m.to_q.out_features // m.heads) for m in unet.modules() if hasattr(m, "heads")}
        assert {count if by_name(name).family == "sd1" else width for count, width in heads} <= {HEADS, HEAD_WIDTH}
        for layer in base.layers.values():
            if layer.id.component == Component.UNET:
                assert torch.equal(unet.get_parameter(f"{layer.id.path}.weight"), base.read(layer))
        assert is_pruned(base, None) == (by_name(name).family != name)


def test_widths_that_do_not_tell_their_heads_are_refused(tmp_path: Path) -> None:
    with (
        open_checkpoint(write_single(tmp_path, "bk-sdm-tiny", SPEAKING)) as base,
        pytest.raises(LoraxError, match=r"cannot build the pruned UNet of 'bk-sdm-tiny'.*heads.*diffusers folder"),
    ):
        build_unet(base, torch.float32)


@pytest.mark.parametrize(("family", "small"), [("sd1", "bk-sdm-small"), ("sdxl", "ssd-1b")])
def test_a_pruned_single_file_is_distilled_onto(family: str, small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the unpruned model's configuration, as diffusers looks it up, it works and learns; the UNet is the file's."""
    monkeypatch.setenv("LORAX_CACHE", str(tmp_path / "cache"))
    widths = replace(SPEAKING, channels=GENUINE.channels, groups=GENUINE.groups)
    folder = diffusers_folder(tmp_path / "source", family, tensors=calm(family, widths), widths=widths)
    target = write_whole(tmp_path / f"{small}.safetensors", folder, family, small, widths)
    ink = write_lora(tmp_path / "ink.safetensors", family, widths=widths)
    settings = DistillSettings(
        samples=2, points=2, sampling_steps=1, resolution=64, guidance=1.0, learning_rate=1e-3, steps=3, device="cpu", target_config=folder
    )
    report = distill(ink, folder, target, tmp_path / "out.safetensors", settings)
    assert report.missed < report.missed_start
