"""What can be said on the command line, and what is a usage error."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from converter import arguments
from converter.__main__ import main
from converter.cli import build_parser
from converter.console import quiet_libraries

COMMANDS = ("inspect", "transfer", "similarity", "to-lorax", "export", "bake", "batch", "demo")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]):
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"lorax-convert {command}" in text
    assert "examples:" in text


def test_help_needs_no_torch():
    code = "import sys; from converter.__main__ import main; main(['transfer', '--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["teleport"],
        ["transfer", "a.safetensors"],
        ["transfer", "a", "--target", "b", "--device", "gpu"],
        ["transfer", "a", "--target", "b", "--device", "cuda:x"],
        ["transfer", "a", "--target", "b", "--rank", "0"],
        ["transfer", "a", "--target", "b", "--rank", "-3"],
        ["transfer", "a", "--target", "b", "--out-rank", "4", "--out-energy", "0.9"],
        ["transfer", "a", "--target", "b", "--out-energy", "0"],
        ["transfer", "a", "--target", "b", "--out-energy", "nan"],
        ["transfer", "a", "--target", "b", "--strength", "inf"],
        ["transfer", "a", "--target", "b", "--components", "vae"],
        ["transfer", "a", "--target", "b", "--report", "x.pdf"],
        ["transfer", "a", "--target", "b", "--method", "magic"],
        ["bake", "c", "-o", "x"],
        ["batch", "--adapters", "a", "--source", "s", "--targets", "t"],
    ],
)
def test_a_mistake_is_a_usage_error(argv: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(argv) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "error:" in told.err


@pytest.mark.parametrize(
    ("text", "path", "strength"),
    [
        ("style.safetensors", "style.safetensors", 1.0),
        ("style.safetensors:0.8", "style.safetensors", 0.8),
        ("style.safetensors:-.5", "style.safetensors", -0.5),
        (r"C:\loras\style.safetensors:0.8", r"C:\loras\style.safetensors", 0.8),
        (r"C:\loras\style.safetensors", r"C:\loras\style.safetensors", 1.0),
        ("C:1", "C:1", 1.0),
        ("odd:name.safetensors", "odd:name.safetensors", 1.0),
        ("odd:name.safetensors:2", "odd:name.safetensors", 2.0),
    ],
)
def test_strength_of_an_adapter(text: str, path: str, strength: float):
    assert arguments.weighted_adapter(text) == (Path(path), strength)


@pytest.mark.skipif(os.name == "nt", reason="no colon in Windows' file names")
def test_a_file_whose_name_ends_like_a_strength(tmp_path: Path):
    path = tmp_path / "style:1"
    path.touch()
    assert arguments.weighted_adapter(str(path)) == (path, 1.0)


def test_ranks_have_their_own_names():
    found = build_parser().parse_args(["transfer", "a", "--target", "b", "--rank", "64", "--out-rank", "8"])
    assert (found.rank, found.out_rank) == (64, 8)


def test_libraries_that_do_not_fit_together_are_left_to_who_needs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def broken(name: str) -> None:
        asked.append(name)
        raise ImportError(f"cannot import a name for {name}")

    monkeypatch.setattr(importlib, "import_module", broken)
    quiet_libraries()
    assert asked == ["diffusers.utils.logging", "transformers.utils.logging"]
