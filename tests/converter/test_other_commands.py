"""``inspect``, ``similarity``, ``to-lorax``, ``export``, ``bake``, ``batch`` and ``demo`` through the command line."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from converter import demo, demo_models
from converter.samples import TINY
from lorax import open_checkpoint, read_adapter
from tests.families import Family, write_lora

Call = Callable[..., tuple[int, str, str]]
CallJson = Callable[..., dict[str, Any]]


def test_inspect_an_adapter(lora: Path, call: Call, call_json: CallJson):
    told = call_json("inspect", lora)
    assert (told["kind"], told["format"], told["family"]) == ("adapter", "kohya", "sd1")
    assert told["modules"] == sum(told["components"].values()) == sum(told["ranks"].values())
    assert set(told["components"]) == {"unet", "te1"}
    assert told["unmatched"] == []
    assert told["base"]["name"] == "source.safetensors"
    assert len(told["hashes"]["sha256"]) == 64
    code, out, _ = call("inspect", lora, "--no-hash")
    assert code == 0
    assert "kohya" in out
    assert "sha256 " not in out.split("made for")[0]


def test_inspect_a_checkpoint(sd1: Family, call: Call, call_json: CallJson):
    told = call_json("inspect", sd1["pruned"], "--no-hash")
    assert (told["kind"], told["family"], told["arch"]) == ("checkpoint", "sd1", "bk-sdm-base")
    assert told["hashes"] == {}
    code, out, _ = call("inspect", sd1["pruned"])
    assert code == 0
    assert re.search(r"sha256\s+[0-9a-f]{64}", out)


def test_inspect_several_is_still_one_object(lora: Path, sd1: Family, call_json: CallJson):
    told = call_json("inspect", lora, sd1["source"], "--no-hash")
    assert [one["kind"] for one in told["files"]] == ["adapter", "checkpoint"]


def test_inspect_something_else(tmp_path: Path, call: Call):
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    code, _, err = call("inspect", path)
    assert code == 1
    assert len(err.splitlines()) == 1


def test_similarity(sd1: Family, call: Call, call_json: CallJson, tmp_path: Path):
    told = call_json("similarity", sd1["source"], sd1["fine"], "--components", "unet")
    assert all(layer["target"].startswith("unet.") for layer in told["layers"])
    assert 0.9 < told["cosine"] < 1
    assert 0 <= told["atc_left"] < 0.5
    code, out, _ = call("similarity", sd1["source"], sd1["pruned"], "--report", tmp_path / "s.html")
    assert code == 0
    assert "relation" in out
    assert "<svg" in (tmp_path / "s.html").read_text(encoding="utf-8")
    assert call("similarity", sd1["source"], sd1["pruned"], "--report", tmp_path / "s.html")[0] == 1


def test_similarity_with_itself_and_with_a_stranger(sd1: Family, call_json: CallJson):
    assert call_json("similarity", sd1["source"], sd1["source"], "--components", "unet")["relation"] == "The same weights."
    told = call_json("similarity", sd1["source"], sd1["other"], "--components", "unet")
    assert told["relation"] == "Unrelated."


def test_to_lorax_and_back(lora: Path, sd1: Family, call: Call, call_json: CallJson, tmp_path: Path):
    made, back = tmp_path / "x.safetensors", tmp_path / "back.safetensors"
    told = call_json("to-lorax", lora, "--base", sd1["source"], "-o", made, "--rank", "6")
    assert 0 < told["energy_kept"] < 0.9
    assert told["warnings"]
    adapter = read_adapter(made)
    assert adapter.native is not None
    assert (adapter.native.k, adapter.native.self_contained) == (6, True)
    code, out, _ = call("export", made, "--base", sd1["source"], "-o", back)
    assert code == 0
    assert "standard LoRA" in out
    assert read_adapter(back).native is None


def test_a_sigma_file_is_tiny_and_bound_to_its_base(lora: Path, sd1: Family, call: Call, tmp_path: Path):
    made = tmp_path / "sigma.safetensors"
    code, out, _ = call("to-lorax", lora, "--base", sd1["source"], "-o", made, "--rank", "6", "--diagonal")
    assert code == 0
    assert "warning" in out
    assert made.stat().st_size < lora.stat().st_size
    assert call("export", made, "--base", sd1["source"], "-o", tmp_path / "ok.safetensors", "--out-rank", "4")[0] == 0
    code, _, err = call("export", made, "--base", sd1["fine"], "-o", tmp_path / "wrong.safetensors")
    assert code == 1
    assert "trained on" in err
    assert not (tmp_path / "wrong.safetensors").exists()


def test_a_lorax_file_is_projected_and_a_copy_of_it_on_its_own_base_is_whole(lora: Path, sd1: Family, call_json: CallJson, tmp_path: Path):
    made = tmp_path / "x.safetensors"
    call_json("to-lorax", lora, "--base", sd1["source"], "-o", made, "--rank", "6")
    told = call_json("transfer", made, "--source", sd1["source"], "--target", sd1["fine"])
    assert "project" in {layer["action"] for layer in told["layers"]}
    assert told["verdict"] == "should work"


def test_bake(lora: Path, sd1: Family, call: Call, call_json: CallJson, tmp_path: Path):
    out = tmp_path / "baked.safetensors"
    told = call_json("bake", sd1["source"], f"{lora}:0.8", lora, "-o", out)
    assert [a["strength"] for a in told["adapters"]] == [0.8, 1.0]
    assert 0 < told["changed"] < told["tensors"]
    with open_checkpoint(out) as baked, open_checkpoint(sd1["source"]) as source:
        assert baked.arch == source.arch
    code, _, err = call("bake", sd1["source"], lora, "-o", sd1["source"], "--force")
    assert code == 1
    assert "is an input" in err


def batch(lora: Path, sd1: Family, out: Path, *more: object) -> tuple[object, ...]:
    return ("batch", "--adapters", lora.parent, "--source", sd1["source"], "--targets", sd1["fine"], sd1["other"], "--out", out, *more)


def test_batch_goes_on_after_a_failure(lora: Path, sd1: Family, call: Call, tmp_path: Path):
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    out = tmp_path / "out"
    code, told, _ = call(*batch(lora, sd1, out, "--json"))
    assert code == 1
    document = json.loads(told)
    assert (document["done"], document["refused"], document["failed"]) == (1, 1, 2)
    states = {(row["adapter"], row["target"]): row["state"] for row in document["rows"]}
    assert states["style", "fine"] == "done"
    assert states["style", "other"] == "refused"
    assert [p.name for p in out.iterdir()] == ["style-fine.safetensors"]


def test_batch_resumes(lora: Path, sd1: Family, call: Call, tmp_path: Path):
    out = tmp_path / "out"
    words = ("batch", "--adapters", lora, "--source", sd1["source"], "--targets", sd1["fine"], "--out", out)
    assert call(*words)[0] == 0
    made = out / "style-fine.safetensors"
    first = made.stat().st_mtime_ns
    assert call(*words)[0] == 1, "never overwritten"
    code, told, _ = call(*words, "--resume")
    assert code == 0
    assert "kept" in told
    assert made.stat().st_mtime_ns == first
    code, told, _ = call(*words, "--resume", "--strength", "0.5")
    assert code == 1
    assert "--force" in told
    code, told, _ = call(*words, "--resume", "--strength", "0.5", "--force")
    assert code == 0
    assert made.stat().st_mtime_ns > first


def test_batch_in_processes_writes_the_same_files(lora: Path, sd1: Family, call: Call, tmp_path: Path):
    write_lora(tmp_path / "other.safetensors", sd1, seed=9)
    loras = (lora, tmp_path / "other.safetensors")
    for jobs in (1, 2):
        words = ("batch", "--adapters", *loras, "--source", sd1["source"], "--targets", sd1["fine"])
        code, _, err = call(*words, "--out", tmp_path / str(jobs), "--jobs", jobs)
        assert code == 0, err
    for path in (tmp_path / "1").iterdir():
        assert path.read_bytes() == (tmp_path / "2" / path.name).read_bytes()


def test_batch_refuses_two_adapters_of_one_name(lora: Path, sd1: Family, call: Call, tmp_path: Path):
    twin = tmp_path / "twins" / lora.name
    twin.parent.mkdir()
    twin.write_bytes(lora.read_bytes())
    code, _, err = call("batch", "--adapters", lora, twin, "--source", sd1["source"], "--targets", sd1["fine"], "--out", tmp_path / "out")
    assert code == 1
    assert "same name" in err


def test_demo(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo_models, "SMALL", TINY)
    monkeypatch.setattr(demo_models, "NATIVE_K", 4)
    out = tmp_path / "demo"
    code, told, _ = call("demo", "--out", out)
    assert code == 0
    assert "drawn at random" in told
    assert (out / "pictures.png").is_file() == (importlib.util.find_spec("diffusers") is not None)
    assert str((out / "index.html").resolve()) in told
    index = (out / "index.html").read_text(encoding="utf-8")
    links = re.findall(r'href="([^"]+)"', index)
    assert len(links) == 9
    assert all((out / link).is_file() for link in links)
    assert demo.NOTICE in index
    demo.prepare(out)  # a demo may replace a demo


def test_demo_leaves_other_folders_alone(tmp_path: Path, call: Call):
    (tmp_path / "thesis.txt").write_text("important")
    code, _, err = call("demo", "--out", tmp_path)
    assert code == 1
    assert "--out" in err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
