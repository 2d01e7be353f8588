"""Relations on disk: the second adapter between two bases reads neither, and an ordinary LoRA needs no decomposition."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lorax.checkpoint import Checkpoint, open_checkpoint
from lorax.formats import read_adapter
from lorax.transfer.kept import related
from lorax.transfer.plan import plan_transfer
from lorax.transfer.relate import Relation, relate
from lorax.transfer.run import run_plan
from tests.families import Family, write_lora


@pytest.fixture(scope="module")
def sd1_lora(sd1: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lora(tmp_path_factory.mktemp("lora") / "style.safetensors", sd1)


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("this should not have been needed")


def same(a: Relation, b: Relation) -> bool:
    return (a.matching, a.scores) == (b.matching, b.scores)


@pytest.mark.parametrize("name", ["fine", "pruned"])
def test_what_is_kept_is_what_was_found(sd1: Family, sd1_lora: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_checkpoint(sd1["source"]) as source, open_checkpoint(sd1[name]) as target:
        layers = sorted(read_adapter(sd1_lora, source.arch).modules)
        found = relate(source, target, layers, method="copy")
        assert same(related(source, target, layers, method="copy", folder=tmp_path), found)
        monkeypatch.setattr(Checkpoint, "read", refuse)
        assert same(related(source, target, layers, method="copy", folder=tmp_path), found)
        next(tmp_path.glob("*.json")).write_text('{"layers": [[')
        with pytest.raises(AssertionError, match="not have been needed"):
            related(source, target, layers, method="copy", folder=tmp_path)
    assert list(tmp_path.glob("*.lock")) == []


def test_a_switch_between_relatives_decomposes_nothing(
    sd1: Family, sd1_lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_checkpoint(sd1["source"]) as source, open_checkpoint(sd1["fine"]) as target:
        adapter = read_adapter(sd1_lora, source.arch)
        plan_transfer(adapter, source, target, relations=tmp_path)
        for name in ("svd", "svdvals", "eigh", "eigvalsh", "qr", "cholesky", "cholesky_ex", "lstsq"):
            monkeypatch.setattr(torch.linalg, name, refuse)
        monkeypatch.setattr(Checkpoint, "read", refuse)
        done = run_plan(plan_transfer(adapter, source, target, relations=tmp_path), adapter, source, target)
    assert done.report.modules_out == len(adapter.modules)
    assert done.report.energy_kept == pytest.approx(1.0, abs=1e-6)
