"""``transfer`` through the command line: contract, refusals, and that nothing is ever left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from converter.samples import TINY, sample_checkpoint
from converter.samples.widths import layer_shapes
from lorax import Factors, read_adapter, write_adapter
from lorax.safefile import open_tensors, write_safetensors
from tests.families import Family, two_levels, write_lora

Call = Callable[..., tuple[int, str, str]]
CallJson = Callable[..., dict[str, Any]]

FIELDS = {"method", "output", "modules_in", "modules_out", "unmatched", "energy_kept", "atc_left", "atc_right", "seconds", "layers"}


def test_json_is_the_contract(lora: Path, sd1: Family, call_json: CallJson):
    told = call_json("transfer", lora, "--source", sd1["source"], "--target", sd1["fine"])
    assert told.keys() >= FIELDS
    assert told["method"] == "copy"
    assert told["output"] == str(lora.with_name("style-fine.safetensors"))
    assert told["modules_in"] == told["modules_out"] == len(told["layers"])
    assert told["energy_kept"] == pytest.approx(1, abs=1e-3)
    assert {layer["action"] for layer in told["layers"]} == {"copy"}


def test_the_output_is_a_lora_for_the_target(lora: Path, sd1: Family, call: Call):
    code, out, _ = call("transfer", lora, "--source", sd1["source"], "--target", sd1["pruned"])
    assert code == 0
    output = lora.with_name("style-pruned.safetensors")
    assert out.splitlines()[-1].endswith(str(output))
    adapter = read_adapter(output)
    assert adapter.retargeted
    assert adapter.metadata["ss_output_name"] == "style-pruned"
    assert adapter.metadata["ss_sd_model_name"].startswith("pruned")
    assert adapter.unmatched == ()


def test_without_a_source_the_targets_own_layout_counts(tmp_path: Path, call_json: CallJson):
    arch = two_levels()
    write_safetensors(tmp_path / "base.safetensors", sample_checkpoint(arch, widths=TINY), {})
    shapes = {i: s for i, s in layer_shapes(arch, TINY).items() if "attn" in i.path}
    modules = {i: Factors(torch.ones(s[0], 1), torch.ones(1, s[1])) for i, s in shapes.items()}
    write_adapter(tmp_path / "its-own.safetensors", modules, arch, shapes=shapes, metadata={})
    told = call_json("transfer", tmp_path / "its-own.safetensors", "--target", tmp_path / "base.safetensors")
    assert (told["modules_out"], told["unmatched"]) == (len(shapes), [])


def test_projection_and_ranks_reach_the_file(lora: Path, sd1: Family, call_json: CallJson, tmp_path: Path):
    told = call_json(
        *("transfer", lora, "--source", sd1["source"], "--target", sd1["fine"], "-o", tmp_path / "p.safetensors"),
        *("--method", "project", "--rank", "6", "--out-rank", "2", "--components", "unet", "--only", "attn1", "--strength", "0.5"),
    )
    carried = [layer for layer in told["layers"] if layer["action"] != "skip"]
    assert {layer["action"] for layer in carried} == {"project"}
    assert all("attn1" in layer["target"] and layer["target"].startswith("unet.") for layer in carried)
    assert max(layer["rank"] for layer in carried) == 2
    assert 0 < told["energy_kept"] < 1
    assert told["settings"]["strength"] == 0.5


def test_dry_run_writes_nothing(lora: Path, sd1: Family, call: Call, call_json: CallJson, tmp_path: Path):
    before = set(tmp_path.iterdir())
    told = call_json("transfer", lora, "--source", sd1["source"], "--target", sd1["fine"], "--dry-run")
    assert told["output"] is None
    assert told["energy_kept"] is None
    code, out, _ = call("transfer", lora, "--source", sd1["source"], "--target", sd1["fine"], "--dry-run")
    assert code == 0
    assert "nothing was written" in out
    assert set(tmp_path.iterdir()) == before


def test_without_a_source_nothing_is_checked(lora: Path, sd1: Family, call_json: CallJson):
    told = call_json("transfer", lora, "--target", sd1["fine"])
    assert told["verdict"] == "unchecked"
    assert told["atc_left"] is None


def test_source_by_hash(lora: Path, sd1: Family, call: Call):
    code, _, err = call("transfer", lora, "--source", "auto", "--checkpoints", sd1.folder, "--target", sd1["fine"])
    assert code == 0, err
    assert str(sd1["source"]) in err


def test_source_by_hash_not_found(lora: Path, sd1: Family, call: Call, tmp_path: Path):
    code, _, err = call("transfer", lora, "--source", "auto", "--checkpoints", tmp_path, "--target", sd1["fine"])
    assert code == 1
    assert "--source" in err


@pytest.mark.parametrize("suffix", [".html", ".md", ".json"])
def test_reports_by_suffix(lora: Path, sd1: Family, call: Call, tmp_path: Path, suffix: str):
    report = tmp_path / f"report{suffix}"
    code, _, err = call("transfer", lora, "--source", sd1["source"], "--target", sd1["pruned"], "--report", report)
    assert code == 0
    assert str(report) in err
    text = report.read_text(encoding="utf-8")
    assert "<script" not in text
    if suffix == ".json":
        assert json.loads(text).keys() >= FIELDS


def test_unrelated_bases_are_refused(lora: Path, sd1: Family, call: Call, call_json: CallJson, tmp_path: Path):
    before = set(tmp_path.iterdir())
    code, out, err = call("transfer", lora, "--source", sd1["source"], "--target", sd1["other"])
    assert (code, out) == (3, "")
    assert err.startswith("lorax-convert: ")
    assert len(err.splitlines()) == 1
    assert set(tmp_path.iterdir()) == before
    told = call_json("transfer", lora, "--source", sd1["source"], "--target", sd1["other"], "--force")
    assert told["verdict"] == "not transferable"


def test_another_family_is_refused(lora: Path, sd1: Family, sdxl: Family, call: Call):
    code, _, err = call("transfer", lora, "--source", sd1["source"], "--target", sdxl["source"])
    assert code == 3
    assert "sdxl" in err


def test_a_transferred_adapter_is_refused(lora: Path, sd1: Family, call: Call):
    assert call("transfer", lora, "--source", sd1["source"], "--target", sd1["fine"])[0] == 0
    again = lora.with_name("style-fine.safetensors")
    code, _, err = call("transfer", again, "--source", sd1["fine"], "--target", sd1["source"])
    assert code == 3
    assert "--force" in err


def test_nothing_is_overwritten_without_force(lora: Path, sd1: Family, call: Call):
    output = lora.with_name("style-fine.safetensors")
    output.write_bytes(b"precious")
    words = ("transfer", lora, "--source", sd1["source"], "--target", sd1["fine"])
    code, _, err = call(*words)
    assert code == 1
    assert "--force" in err
    assert output.read_bytes() == b"precious"
    assert call(*words, "--force")[0] == 0
    assert output.stat().st_size > 1000


@pytest.mark.parametrize("victim", ["adapter", "source", "target"])
def test_an_input_is_never_the_output(lora: Path, sd1: Family, call: Call, victim: str):
    path = {"adapter": lora, "source": sd1["source"], "target": sd1["fine"]}[victim]
    content = path.read_bytes()
    code, _, err = call("transfer", lora, "--source", sd1["source"], "--target", sd1["fine"], "-o", path, "--force")
    assert code == 1
    assert "is an input" in err
    assert path.read_bytes() == content


def test_a_source_found_by_hash_is_never_the_output(lora: Path, sd1: Family, call: Call, tmp_path: Path):
    folder = tmp_path / "models"
    folder.mkdir()
    base = folder / "base.safetensors"
    base.write_bytes(sd1["source"].read_bytes())
    code, _, err = call("transfer", lora, "--source", "auto", "--checkpoints", folder, "--target", sd1["fine"], "-o", base, "--force")
    assert code == 1
    assert "is an input" in err
    assert base.read_bytes() == sd1["source"].read_bytes()


def test_a_missing_base_is_one_line(lora: Path, sd1: Family, call: Call, tmp_path: Path):
    code, _, err = call("transfer", lora, "--source", sd1["source"], "--target", tmp_path / "no.safetensors")
    assert code == 1
    assert len(err.splitlines()) == 1


def test_a_report_never_replaces_the_output(lora: Path, sd1: Family, call: Call):
    code, _, err = call(
        *("transfer", lora, "--source", sd1["source"], "--target", sd1["fine"], "-o", lora.with_name("x.safetensors")),
        *("--report", lora.with_name("missing") / "x.html"),
    )
    assert code == 1
    assert "does not exist" in err
    assert not lora.with_name("x.safetensors").exists()


def test_the_sidecars_come_along(lora: Path, sd1: Family, call: Call):
    lora.with_suffix(".json").write_text('{"notes": "mine"}')
    lora.with_suffix(".png").write_bytes(b"picture")
    assert call("transfer", lora, "--source", sd1["source"], "--target", sd1["fine"])[0] == 0
    assert json.loads(lora.with_name("style-fine.json").read_text()) == {"notes": "mine"}
    assert lora.with_name("style-fine.png").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"", "empty"), (b"hello, I am a text", "safetensors"), (b"\x08\0\0\0\0\0\0\0{}      ", "no tensors")],
)
def test_bad_files_are_one_line(tmp_path: Path, sd1: Family, call: Call, content: bytes, told: str):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    code, out, err = call("transfer", path, "--source", sd1["source"], "--target", sd1["fine"])
    assert (code, out) == (1, "")
    assert err.startswith("lorax-convert: ")
    assert len(err.splitlines()) == 1
    assert told in err.lower()


def test_a_missing_file(tmp_path: Path, sd1: Family, call: Call):
    code, _, err = call("transfer", tmp_path / "no.safetensors", "--source", sd1["source"], "--target", sd1["fine"])
    assert code == 1
    assert "does not exist" in err


@pytest.mark.parametrize("moment", ["transferring", "comparing the two bases"])
def test_ctrl_c_leaves_nothing(lora: Path, sd1: Family, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str):
    from converter.console import Bars

    monkeypatch.setenv("LORAX_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()

    def interrupt(self: Bars, text: str, done: int, total: int) -> None:
        if text == moment and done > 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Bars, "__call__", interrupt)
    before = set(tmp_path.iterdir())
    code, out, err = call("transfer", lora, "--source", sd1["source"], "--target", sd1["fine"])
    assert (code, out) == (130, "")
    assert len(err.splitlines()) == 1
    assert set(tmp_path.iterdir()) == before


@pytest.mark.skipif(os.name == "nt", reason="pipes close in another way on Windows")
def test_a_reader_that_goes_away_is_no_error(sd1: Family):
    command = [sys.executable, "-m", "converter", "inspect", str(sd1["source"]), "--no-hash", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(120) == 0
    assert err == b""


def test_sdxl_to_its_pruned_relative(sdxl: Family, call_json: CallJson, tmp_path: Path):
    lora = write_lora(tmp_path / "style.safetensors", sdxl)
    told = call_json("transfer", lora, "--source", sdxl["source"], "--target", sdxl["pruned"], "--format", "peft", "--dtype", "bf16")
    assert told["blocks"]
    moved = [layer for layer in told["layers"] if layer["target"] not in (None, layer["source"])]
    assert moved
    file = open_tensors(Path(told["output"]))
    assert all(".lora_A." in name or ".lora_B." in name for name in file.tensors)
    assert {info.dtype for info in file.tensors.values()} == {"BF16"}
    file.close()
