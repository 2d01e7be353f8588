"""``compare-pictures`` on tiny pipelines: the grid, the table, and what cannot be drawn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from converter.__main__ import main
from converter.samples import relative
from tests.train.pipelines import diffusers_folder
from tests.train.test_distill import calm, write_lora

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")]


def test_the_grid_and_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    monkeypatch.setenv("LORAX_CACHE", str(tmp_path / "cache"))
    source, grid = calm("sd1"), tmp_path / "grid.png"
    diffusers_folder(tmp_path / "source", "sd1", tensors=source)
    diffusers_folder(tmp_path / "target", "sd1", tensors=relative(source, 0.03, keep=("text_encoder.",)))
    ink = write_lora(tmp_path / "ink.safetensors", "sd1")
    (tmp_path / "p.txt").write_text("a cat\n# no\na dog\n", encoding="utf-8")
    said = ["compare-pictures", str(ink), "--target", str(tmp_path / "target"), "--prompts", str(tmp_path / "p.txt"), "-o", str(grid)]
    small = ["--steps", "1", "--guidance", "1", "--resolution", "64", "--batch-size", "4", "--device", "cpu"]
    given = [*said, "--source", str(tmp_path / "source"), *small]
    assert main([*given, "--methods", "none,copy,distill", "--distilled", str(ink), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rows"] == 2
    none, copied, given_file = told["columns"]
    assert none["cosine"] is None
    assert 0.8 < copied["cosine"] < 0.999
    assert copied["in_words"] == "the target shows the adapter's effect"
    assert given_file["cosine"] == pytest.approx(copied["cosine"], abs=1e-3), "the file given as distilled is the one that is copied"
    with Image.open(grid) as picture:
        assert picture.size == (168 + 5 * 136 + 8, 8 + 64 + 2 * 136)
        columns = [picture.crop((168 + i * 136, 72, 296 + i * 136, 200)).tobytes() for i in range(5)]
    assert columns[3] == columns[4], "the same adapter draws the same picture"
    assert len(set(columns)) == 4, "and every other column another one"
    before = grid.read_bytes()
    assert main(given) == 1
    assert "--force" in capsys.readouterr().err
    assert grid.read_bytes() == before
    assert main([*said, "--source", str(tmp_path / "source"), "--methods", "copi"]) == 2


def test_a_method_that_cannot_be_made_is_a_line(tmp_path: Path) -> None:
    from lorax import open_checkpoint, read_adapter
    from lorax.train.compare.settings import CompareSettings
    from lorax.train.compare.variants import make_variants

    folder = diffusers_folder(tmp_path / "source", "sd1", tensors=calm("sd1"))
    ink = write_lora(tmp_path / "ink.safetensors", "sd1")
    broken = CompareSettings(("a cat",), ("none", "distill"), distilled=tmp_path / "gone.safetensors")
    with open_checkpoint(folder) as base:
        none, distilled = make_variants(read_adapter(ink, base.arch), base, base, broken, tmp_path / "d.safetensors", lambda *_: None)
    assert none.deltas == {}
    assert distilled.deltas is None
    assert "gone.safetensors" in distilled.words
