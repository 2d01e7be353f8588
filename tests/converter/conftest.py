"""One cache folder for all commands of a test session, and the files that commands work on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from converter.__main__ import main
from lorax import open_checkpoint
from lorax.safefile import open_tensors, write_safetensors
from tests.families import Family, write_lora

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAX_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command: (exit code, stdout, stderr)."""

    def run(*argv: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in argv])
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


@pytest.fixture
def call_json(call: Call) -> Callable[..., dict[str, Any]]:
    """Run a command with --json that has to succeed; the one object on stdout, read strictly."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    def run(*argv: object) -> dict[str, Any]:
        code, out, err = call(*argv, "--json")
        assert code == 0, err
        return json.loads(out, parse_constant=refuse)

    return run


@pytest.fixture(scope="session")
def sd1_lora(sd1: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA for the family's source that names it by hash and carries a script in its metadata."""
    path = write_lora(tmp_path_factory.mktemp("loras") / "style.safetensors", sd1)
    with open_checkpoint(sd1["source"]) as source:
        hashes = source.hashes()
    assert hashes is not None
    file = open_tensors(path)
    tensors = {name: file.read(name).clone() for name in file.tensors}
    metadata = {
        **file.metadata,
        "ss_new_sd_model_hash": hashes.sha256,
        "ss_sd_model_hash": hashes.autov1,
        "ss_training_comment": "<script>alert(1)</script>",
    }
    file.close()
    write_safetensors(path, tensors, metadata, overwrite=True)
    return path


@pytest.fixture
def lora(sd1_lora: Path, tmp_path: Path) -> Path:
    """A copy of that LoRA in the test's own folder."""
    copy = tmp_path / "style.safetensors"
    copy.write_bytes(sd1_lora.read_bytes())
    return copy
