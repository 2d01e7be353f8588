"""What ``python -m lorax.train`` says to input that it cannot use, and that nothing is lost then."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from lorax.train.__main__ import main
from lorax.train.cli import build_parser
from tests.train.pipelines import base_file, diffusers_folder
from tests.train.test_trainer import arguments, tensors

pytestmark = [
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("no folder", "is no folder"),
        ("no pictures", "has no pictures"),
        ("not a picture", "cannot be read as a picture"),
        ("cut picture", "is damaged"),
        ("empty caption", "'2.txt' beside it"),
        ("no caption", "'2.txt' beside it"),
        ("caption bytes", "UTF-8"),
        ("no base", "does not exist"),
        ("unknown base", "UNet"),
        ("unet only", "--config"),
        ("target", "Did you mean 'attn'"),
        ("output", ".safetensors"),
        ("exists", "--force"),
        ("nothing to resume", "nothing to resume"),
        ("fp16 on a cpu", "needs a GPU"),
    ],
)
def test_bad_input_is_one_clear_line(
    change: str, said: str, base: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out, more, model = tmp_path / "p", tmp_path / "a.safetensors", ["--steps", "1"], base
    shutil.copytree(pictures, folder)
    if change == "no folder":
        folder = tmp_path / "nowhere"
    elif change == "no pictures":
        folder = tmp_path / "empty"
        folder.mkdir()
    elif change == "not a picture":
        (folder / "1.png").write_bytes(b"GIF? no")
    elif change == "cut picture":
        (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:60])
    elif change == "no caption":
        (folder / "2.txt").unlink()
    elif change == "empty caption":
        (folder / "2.txt").write_text(" ")
    elif change == "caption bytes":
        (folder / "2.txt").write_bytes(b"\xff\xfe\x00")
    elif change == "no base":
        model = tmp_path / "gone.safetensors"
    elif change == "unknown base":
        from safetensors.torch import save_file

        model = tmp_path / "other.safetensors"
        save_file({"a.weight": torch.zeros(2, 2)}, model)
        said = "not a model that we know"
    elif change == "unet only":
        model = base_file(tmp_path / "novae.safetensors", "sd1")
        more += ["--config", str(tmp_path)]
    elif change == "target":
        more += ["--target", "atn"]
    elif change == "output":
        out = tmp_path / "a.ckpt"
    elif change == "exists":
        out.write_bytes(b"mine")
    elif change == "nothing to resume":
        more += ["--resume"]
    elif change == "fp16 on a cpu":
        more += ["--precision", "fp16"]
    assert main(arguments(model, folder, out, *more)) == 1
    err = capsys.readouterr().err.strip().splitlines()[-1]
    assert err.startswith("lorax.train: ")
    assert said in err
    assert change != "exists" or out.read_bytes() == b"mine"
    assert change == "exists" or not out.exists()


def test_resuming_on_another_base_or_with_another_k_is_refused(
    base: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.safetensors"
    assert main(arguments(base, pictures, out, "--steps", "2")) == 0
    before = out.read_bytes()
    other = diffusers_folder(tmp_path / "other", "sd1", seed=5)
    assert main(arguments(other, pictures, out, "--steps", "4", "--resume")) == 1
    assert "train on that base" in capsys.readouterr().err
    assert main(arguments(base, pictures, out, "--steps", "4", "--resume", "--rank", "4")) == 1
    assert "had --rank 6" in capsys.readouterr().err
    (tmp_path / "a-state" / "optimizer.pt").write_bytes(b"cut")
    assert main(arguments(base, pictures, out, "--steps", "4", "--resume")) == 1
    assert "damaged" in capsys.readouterr().err
    assert out.read_bytes() == before


def test_a_k_larger_than_every_layer_is_cut(base: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    assert main([*arguments(base, pictures, out, "--steps", "1"), "--rank", "320"]) == 0
    assert {t.numel() for t in tensors(out).values()} == {8, 16, 24}


def test_nothing_is_lost_when_a_forced_run_cannot_begin(
    base: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.safetensors"
    assert main([*arguments(base, pictures, out), "--steps", "1", "--save-every", "1"]) == 0
    before = {path: path.read_bytes() for path in tmp_path.glob("a*/*")} | {out: out.read_bytes()}
    (tmp_path / "empty").mkdir()
    assert main([*arguments(base, tmp_path / "empty", out), "--force"]) == 1
    assert main([*arguments(tmp_path / "gone", pictures, out), "--force"]) == 1
    capsys.readouterr()
    assert len(before) > 3
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    "words", ["--steps 0", "--learning-rate 0", "--learning-rate nan", "--learning-rate x", "--warmup -1", "--sample-every -2", "--rank 0"]
)
def test_numbers_that_make_no_sense_are_a_matter_of_usage(words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments(tmp_path, tmp_path, tmp_path / "a.safetensors"), *words.split()]) == 2
    assert f"argument {words.split()[0]}: '{words.split()[1]}' is no number" in capsys.readouterr().err


def test_every_option_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "None" not in capsys.readouterr().out
    for action in build_parser()._actions:
        assert action.help, f"{action.dest} has no help"
