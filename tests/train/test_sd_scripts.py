"""A real sd-scripts trains, saves and goes on, where one is at hand (tests/train/sd_scripts.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from converter.__main__ import main as convert
from lorax.formats import read_adapter
from tests.train.sd_scripts import FOLDER, REASON, prepare, train

pytestmark = pytest.mark.skipif(not FOLDER, reason=REASON)


@pytest.mark.parametrize(("script", "name"), [("train_network.py", "sd1"), ("sdxl_train_network.py", "sdxl")])
def test_it_learns_saves_goes_on_and_is_transferred(script: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(tmp_path, name)
    train(tmp_path, script, "trained", 30, 0.03)
    frozen = train(tmp_path, script, "frozen", 10, 0.0)
    again = train(tmp_path, script, "again", 10, 0.0, "--network_weights=out/trained.safetensors")
    merged = train(tmp_path, script, "merged", 10, 0.0, "--base_weights", "out/trained.safetensors")
    assert again < 0.95 * frozen
    assert again == pytest.approx(merged, abs=0.002), "the file gives the same loss on both of its ways in"

    adapter = read_adapter(tmp_path / "out" / "trained.safetensors")
    assert adapter.native is not None
    assert adapter.arch.family == name
    assert adapter.metadata["ss_network_module"] == "lorax.train.kohya"
    assert adapter.metadata["ss_sd_model_name"] == adapter.metadata["lorax.base_name"] == "base.safetensors"
    files = [str(tmp_path / name) for name in ("out/trained.safetensors", "base.safetensors", "fine.safetensors", "carried.safetensors")]
    assert convert(["transfer", files[0], "--source", files[1], "--target", files[2], "-o", files[3]]) == 0
    capsys.readouterr()
    assert len(read_adapter(files[3]).modules) > 0.9 * len(adapter.modules)
