"""``cache``: what it says about a folder is what lies there, and only the kinds that are named go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from converter.__main__ import main
from converter.cache_options import PARTS
from lorax.bases import default_bases
from lorax.cachefolder import NAMES


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORAX_CACHE", str(tmp_path))
    default_bases().span(torch.randn(24, 40, generator=torch.Generator().manual_seed(0)), 8)
    (tmp_path / "tensors").mkdir()
    (tmp_path / "tensors" / "a.json").write_text("{}")
    (tmp_path / "catalog.json").write_text("{}")
    return tmp_path


def test_what_can_be_named_is_what_there_is() -> None:
    assert PARTS == NAMES


def test_list_and_size_agree_with_the_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "list", "--json"]) == 0
    parts = {part["name"]: part for part in json.loads(capsys.readouterr().out)["parts"]}
    assert (parts["bases"]["files"], parts["index"]["files"], parts["transferred"]["files"]) == (1, 2, 0)
    assert main(["cache", "size", "--json"]) == 0
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert json.loads(capsys.readouterr().out)["bytes"] == total
    assert main(["cache", "list"]) == 0
    assert "singular vectors" in capsys.readouterr().out


def test_clear_removes_what_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "clear", "bases"]) == 0
    assert "1 files removed" in capsys.readouterr().out
    assert sorted(path.name for path in folder.rglob("*.json")) == ["a.json", "catalog.json"]
    assert main(["cache", "clear", "--folder", str(folder)]) == 0
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    assert main(["cache", "clear", "pictures"]) == 2


def test_verify_finds_and_removes_damage(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "verify"]) == 0
    assert "sound" in capsys.readouterr().out
    entry = next((folder / "bases").glob("*.safetensors"))
    raw = bytearray(entry.read_bytes())
    raw[-1] ^= 1
    entry.write_bytes(raw)
    (folder / "catalog.json").write_text("{")
    assert main(["cache", "verify", "--json"]) == 1
    damaged = json.loads(capsys.readouterr().out)["damaged"]
    assert {Path(d["file"]).name for d in damaged} == {entry.name, "catalog.json"}
    assert not entry.exists()
    assert main(["cache", "verify"]) == 0
