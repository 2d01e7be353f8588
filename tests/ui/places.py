"""Three folders to work in: two adapters, one of them with markup in its metadata, and four small bases."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from lorax.checkpoint import open_checkpoint
from lorax.safefile import open_tensors, write_safetensors
from lorax.ui.standalone import place_of
from lorax.ui.workplace import Workplace
from tests.families import Family, write_lora

MARKUP = "<script>document.title = 'taken over'</script><img src=x onerror=\"document.title='taken over'\">"


@dataclass(frozen=True)
class Folders:
    adapters: Path
    checkpoints: Path
    out: Path

    @property
    def place(self) -> Workplace:
        return place_of(self.adapters, self.checkpoints, self.out, "cpu")


def make_folders(root: Path, family: Family) -> Folders:
    """adapters: ``style`` names its base by hash, ``stranger`` names none."""
    folders = Folders(root / "adapters", root / "checkpoints", root / "out")
    for folder in (folders.adapters, folders.checkpoints, folders.out):
        folder.mkdir()
    for name in ("source", "fine", "pruned", "other"):
        os.link(family[name], folders.checkpoints / f"{name}.safetensors")
    with open_checkpoint(family["source"]) as source:
        hashes = source.hashes()
    assert hashes is not None
    named = {"ss_new_sd_model_hash": hashes.sha256, "ss_sd_model_hash": hashes.autov1, "ss_training_comment": MARKUP}
    write_lora(folders.adapters / "style.safetensors", family)
    rewrite(folders.adapters / "style.safetensors", named)
    write_lora(folders.adapters / "stranger.safetensors", family, seed=5)
    rewrite(folders.adapters / "stranger.safetensors", {"ss_sd_model_name": "nobody-has-this.safetensors"})
    return folders


def rewrite(path: Path, metadata: dict[str, str]) -> None:
    """Add to a file's metadata."""
    file = open_tensors(path)
    tensors = {name: file.read(name).clone() for name in file.tensors}
    known = dict(file.metadata)
    file.close()
    write_safetensors(path, tensors, {**known, **metadata}, overwrite=True)
