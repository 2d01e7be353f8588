"""Adapters that come from strangers."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

EVIL = "<script>window.evil = 1</script><img src=x onerror='window.evil = 2'>"
HASHES = ("ss_new_sd_model_hash", "ss_sd_model_hash")


def write_evil(source: Path, path: Path) -> None:
    """An adapter whose metadata and notes are HTML wherever they can be."""
    names = ("ss_sd_model_name", "ss_output_name", "modelspec.description", "modelspec.trigger_phrase", "sshs_model_hash")
    save_file(load_file(source), path, {**metadata(source), **dict.fromkeys(names, EVIL)})
    path.with_suffix(".json").write_text(json.dumps({"activation text": EVIL, "notes": EVIL}))


def write_stray(source: Path, path: Path) -> None:
    """An adapter whose base is nowhere."""
    told = {name: text for name, text in metadata(source).items() if name not in HASHES}
    save_file(load_file(source), path, {**told, "ss_sd_model_name": "nobody-has-this.safetensors"})


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())
