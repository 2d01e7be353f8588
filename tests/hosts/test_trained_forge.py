"""A file that was just trained on the WebUI's own checkpoint, in a real Forge: it draws what its export draws."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lorax.train.__main__ import main as train
from tests.hosts import real_forge
from tests.hosts.adapters import Adapters
from tests.hosts.test_trained import PROMPT, check
from tests.train.pictures import write_pictures

KIND = "FORGE"

pytestmark = [
    pytest.mark.skipif(bool(real_forge.why_not(KIND)), reason=real_forge.why_not(KIND)),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def bench() -> Iterator[real_forge.RealForge]:
    made = real_forge.RealForge(KIND)
    yield made
    made.close()


@pytest.mark.parametrize("said", ["", "--kind full --rank 16", "--self-contained --rank 16"])
def test_a_file_of_the_command(bench: real_forge.RealForge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv("LORAX_CACHE", str(tmp_path / "cache"))
    adapters, name = Adapters(bench), f"own{len(said)}"
    out, lora = adapters.lora / f"{name}.safetensors", adapters.lora / f"{name}-lora.safetensors"
    pictures, config = write_pictures(tmp_path / "pictures"), write_config(adapters.checkpoint("a"), tmp_path / "config")
    words = [str(adapters.checkpoint("a")), str(pictures), "-o", str(out), "--config", str(config), "--export", str(lora), *said.split()]
    common = "--resolution 64 --steps 12 --warmup 1 --learning-rate 0.3 --sample-every 0 --device cpu --dtype fp32"
    assert train([*words, *common.split()]) == 0
    check(bench, adapters, name)
    ours = bench.picture(f"{PROMPT} <lorax:{name}:1>").pixels
    assert ours == bench.picture(f"{PROMPT} <lora:{name}-lora:1>").pixels, "of --export"


def write_config(checkpoint: Path, folder: Path) -> Path:
    """The diffusers folder that ``--config`` wants: the UNet by the checkpoint's own blocks and widths, the rest as Forge has it."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    hub = real_forge.sd1_config()
    StableDiffusionPipeline(
        vae=AutoencoderKL.from_config(AutoencoderKL.load_config(str(hub / "vae"))),
        text_encoder=CLIPTextModel(CLIPTextConfig.from_pretrained(str(hub / "text_encoder"))),
        tokenizer=CLIPTokenizer.from_pretrained(str(hub / "tokenizer")),
        unet=UNet2DConditionModel(**real_forge.unet_config(checkpoint, 64)),
        scheduler=DDIMScheduler.from_config(DDIMScheduler.load_config(str(hub / "scheduler"))),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(str(folder))
    return folder
