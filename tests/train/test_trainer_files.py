"""What ``python -m lorax.train`` leaves beside its file: samples, the standard LoRA, and what ``--force`` and ``--resume`` do to them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from lorax.bases import Bases
from lorax.checkpoint import open_checkpoint
from lorax.export import export_adapter
from lorax.formats import read_adapter
from lorax.train.__main__ import main
from tests.train.test_trainer import arguments

pytestmark = [
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

SAMPLES = ["--sample-every", "2", "--sample-steps", "1", "--sample-guidance", "1"]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def sampled(*steps: int, prompts: int = 1) -> set[str]:
    return {f"step-{step:06d}-{i}.png" for step in steps for i in range(prompts)}


def test_samples_come_every_n_steps_and_those_of_a_replaced_run_go(
    base: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, folder = tmp_path / "a.safetensors", tmp_path / "a-samples"
    said = [*arguments(base, pictures, out), *SAMPLES, "--force"]
    assert main([*said, "--steps", "5", "--sample-prompt", "red", "--sample-prompt", "a, b"]) == 0
    assert names(folder) == sampled(0, 2, 4, prompts=2) | {"grid.png"}
    with Image.open(folder / "grid.png") as grid, Image.open(folder / "step-000004-1.png") as last:
        assert grid.size == (3 * 64, 2 * 64), "a row for each prompt, training going on to the right"
        assert grid.crop((128, 64, 192, 128)).tobytes() == last.tobytes()
        first = grid.crop((0, 64, 64, 128)).tobytes()
        assert first != last.tobytes(), "what was learned shows"
    mine = {"mine.png", "step-final.png", "step-000002-0.txt"}
    for name in mine:
        (folder / name).write_bytes(b"mine")
    before = names(folder)

    damaged = shutil.copytree(pictures, tmp_path / "damaged")
    (damaged / "1.png").write_bytes(b"no picture")
    assert main([*arguments(base, damaged, out), *SAMPLES, "--force"]) == 1
    assert main([*arguments(base, pictures, out), *SAMPLES]) == 1
    assert names(folder) == before, "a run that does not begin replaces nothing"

    assert main([*said, "--steps", "2", "--sample-prompt", "red"]) == 0
    assert names(folder) == sampled(0, 2) | {"grid.png"} | mine
    assert main([*arguments(base, pictures, out), *SAMPLES, "--steps", "4", "--sample-prompt", "red", "--resume"]) == 0
    assert names(folder) == sampled(0, 2, 4) | {"grid.png"} | mine, "a resumed run goes on with its own"
    capsys.readouterr()


def test_the_standard_lora_is_that_of_the_file_also_of_a_resumed_run(base: Path, pictures: Path, tmp_path: Path) -> None:
    out, lora = tmp_path / "a.safetensors", tmp_path / "a-lora.safetensors"
    said = [*arguments(base, pictures, out), "--export", str(lora)]
    assert main([*said, "--steps", "1"]) == 0
    before = lora.read_bytes()
    assert main([*said, "--steps", "2"]) == 1, "not overwritten without --force or --resume"
    assert main([*said, "--steps", "3", "--resume"]) == 0
    assert lora.read_bytes() != before
    with open_checkpoint(base) as checkpoint:
        expected = export_adapter(read_adapter(out, checkpoint.arch), checkpoint, bases=Bases()).modules
        written = read_adapter(lora, checkpoint.arch).modules
        silent = expected.keys() - written.keys()
        assert all(not expected[layer].dense().any() for layer in silent), "what no token reaches has nothing to write"
        assert written.keys() <= expected.keys()
        assert len(written) > 100
        for layer, module in written.items():
            delta = module.delta(checkpoint.read(checkpoint.layers[layer]))
            torch.testing.assert_close(delta, expected[layer].dense(), rtol=1e-2, atol=1e-4)


def test_a_standard_lora_does_not_replace_the_file_itself(
    base: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.safetensors"
    assert main([*arguments(base, pictures, out), "--export", str(tmp_path / "." / "a.safetensors"), "--force"]) == 1
    assert "is the output itself" in capsys.readouterr().err
    assert not out.exists()
