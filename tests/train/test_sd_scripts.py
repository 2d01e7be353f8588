"""A real sd-scripts trains, saves and goes on, where one is at hand (tests/train/sd_scripts.py)."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from converter.__main__ import main as convert
from converter.samples import Widths, relative, sample_checkpoint
from lorax.archs import by_name
from lorax.formats import read_adapter
from lorax.safefile import write_safetensors
from tests.train.pictures import VOCABULARY, write_pictures, write_tokenizer
from tests.train.sd_scripts import FOLDER, REASON, call, train

WIDTHS = Widths(channels=(32, 64, 128, 128), text1=24, text2=32, vocabulary=VOCABULARY, size_embedding=256)

pytestmark = pytest.mark.skipif(not FOLDER, reason=REASON)


@pytest.mark.parametrize(("script", "name"), [("train_network.py", "sd1"), ("sdxl_train_network.py", "sdxl")])
def test_it_learns_saves_goes_on_and_is_transferred(script: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "widths.json").write_text(json.dumps(asdict(WIDTHS)))
    arch, base = by_name(name), sample_checkpoint(by_name(name), "single_file", WIDTHS, 0, torch.float16)
    write_safetensors(tmp_path / "bare.safetensors", base, {})
    write_safetensors(tmp_path / "fine.safetensors", relative(base, 0.1), {})
    write_pictures(tmp_path / "pictures" / "10_style")
    for tokenizer in ("openai_clip-vit-large-patch14", "laion_CLIP-ViT-bigG-14-laion2B-39B-b160k"):
        write_tokenizer(tmp_path / "tokenizers" / tokenizer)
    call(tmp_path, "add-vae", "bare.safetensors", "base.safetensors")

    train(tmp_path, script, "trained", 30, 0.03)
    frozen = train(tmp_path, script, "frozen", 10, 0.0)
    again = train(tmp_path, script, "again", 10, 0.0, "--network_weights=out/trained.safetensors")
    merged = train(tmp_path, script, "merged", 10, 0.0, "--base_weights", "out/trained.safetensors")
    assert again < 0.95 * frozen
    assert again == pytest.approx(merged, abs=0.002), "the file gives the same loss on both of its ways in"

    adapter = read_adapter(tmp_path / "out" / "trained.safetensors")
    assert adapter.native is not None
    assert adapter.arch.family == arch.family
    assert adapter.metadata["ss_network_module"] == "lorax.train.kohya"
    assert adapter.metadata["ss_sd_model_name"] == adapter.metadata["lorax.base_name"] == "base.safetensors"
    files = [str(tmp_path / name) for name in ("out/trained.safetensors", "base.safetensors", "fine.safetensors", "carried.safetensors")]
    assert convert(["transfer", files[0], "--source", files[1], "--target", files[2], "-o", files[3]]) == 0
    capsys.readouterr()
    assert len(read_adapter(files[3]).modules) > 0.9 * len(adapter.modules)
