"""A file that was just trained on the WebUI's own checkpoint, in the real WebUI: by the command, and by a real sd-scripts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lorax.formats import read_adapter
from lorax.train.__main__ import main as train
from tests.hosts import real_a1111
from tests.hosts.adapters import Adapters
from tests.train import sd_scripts
from tests.train.pictures import write_pictures

PROMPT = "red and yellow stripes"

pytestmark = [
    pytest.mark.skipif(bool(real_a1111.why_not()), reason=real_a1111.why_not()),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def bench() -> Iterator[real_a1111.RealA1111]:
    made = real_a1111.RealA1111()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAX_CACHE", str(tmp_path / "cache"))


def test_a_file_of_the_command(bench: real_a1111.RealA1111, tmp_path: Path) -> None:
    adapters = Adapters(bench)
    out, lora = adapters.lora / "own.safetensors", adapters.lora / "own-lora.safetensors"
    pictures, config = write_pictures(tmp_path / "pictures"), write_config(adapters.checkpoint("a"), tmp_path / "config")
    said = "--resolution 64 --steps 12 --warmup 1 --learning-rate 0.1 --sample-every 0 --device cpu --dtype fp32"
    words = [str(adapters.checkpoint("a")), str(pictures), "-o", str(out), "--config", str(config), "--export", str(lora)]
    assert train([*words, *said.split()]) == 0
    check(bench, adapters, "own")
    assert bench.picture(f"{PROMPT} <lora:own-lora:1>").pixels == bench.picture(f"{PROMPT} <lorax:own:1>").pixels, "of --export"


@pytest.mark.skipif(not sd_scripts.FOLDER, reason=sd_scripts.REASON)
def test_a_file_of_sd_scripts(bench: real_a1111.RealA1111, tmp_path: Path) -> None:
    adapters = Adapters(bench)
    said = configuration(adapters.checkpoint("a"))
    unet, clip = said["unet_config"]["params"], Path(said["cond_stage_config"]["params"]["version"])
    width = json.loads((clip / "config.json").read_text())
    widths = {"channels": [unet["model_channels"] * m for m in unet["channel_mult"]], "heads": unet["num_heads"]}
    widths |= {"text1": width["hidden_size"], "text2": width["hidden_size"], "vocabulary": width["vocab_size"]}
    widths |= {"vae": said["first_stage_config"]["params"]["ddconfig"]["ch_mult"]}
    (tmp_path / "widths.json").write_text(json.dumps(widths))
    shutil.copytree(clip, tmp_path / "tokenizers" / "openai_clip-vit-large-patch14")
    (tmp_path / "base.safetensors").symlink_to(adapters.checkpoint("a"))
    write_pictures(tmp_path / "pictures" / "10_style")
    sd_scripts.train(tmp_path, "train_network.py", "kohya", 12, 0.1)
    shutil.copy(tmp_path / "out" / "kohya.safetensors", adapters.lora)
    check(bench, adapters, "kohya")


def check(bench: real_a1111.RealA1111, adapters: Adapters, name: str) -> None:
    """It changes the picture as its exported LoRA does, follows a switch, and comes back."""
    assert read_adapter(adapters.lora / f"{name}.safetensors").native is not None
    for target in ("a", "b"):
        adapters.export(name, "a", target)
    bench.post("/lorax/v1/refresh")
    for target in ("a", "b", "a"):
        bench.switch(target)
        ours = bench.picture(f"{PROMPT} <lorax:{name}:1>").pixels
        assert ours != bench.picture(PROMPT).pixels
        assert ours == bench.picture(f"{PROMPT} <lora:{name}-for-{target}:1>").pixels, target


def configuration(checkpoint: Path) -> Any:
    """What the .yaml beside a checkpoint says of its networks."""
    return yaml.safe_load(checkpoint.with_suffix(".yaml").read_text())["model"]["params"]


def write_config(checkpoint: Path, folder: Path) -> Path:
    """The diffusers folder that ``--config`` wants, made of the .yaml by diffusers itself."""
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    clip = configuration(checkpoint)["cond_stage_config"]["params"]["version"]
    StableDiffusionPipeline.from_single_file(
        str(checkpoint),
        original_config=str(checkpoint.with_suffix(".yaml")),
        text_encoder=CLIPTextModel(CLIPTextConfig.from_pretrained(clip)),
        tokenizer=CLIPTokenizer.from_pretrained(clip),
        safety_checker=None,
        requires_safety_checker=False,
        local_files_only=True,
    ).save_pretrained(str(folder))
    return folder
