"""The family that the converter's demo carries with it: a source, its block-pruned child and one LoRA, in half precision."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from benchmarks.quality.family import Member, Workshop
from lorax import open_tensors, write_safetensors

FAMILY, SEED, STYLE = "sd", 0, "hue"


def write_sample(workshop: Workshop, folder: Path) -> None:
    """``source/`` whole, ``blocks/`` with the UNet alone (the rest is the source's), ``hue.safetensors``."""
    source, blocks = (Member(FAMILY, SEED, name) for name in ("source", "blocks"))
    adapter = workshop.adapter(source, "lora", STYLE)
    for member, part in ((source, ""), (blocks, "unet")):
        pipeline = workshop.model(member).with_suffix("")
        shutil.copytree(pipeline / part, folder / member.name / part, dirs_exist_ok=True)
    shutil.copytree(workshop.folder / "tokenizer", folder / source.name / "tokenizer", dirs_exist_ok=True)  # as transformers 4 reads it
    (folder / f"{STYLE}.safetensors").write_bytes(adapter.read_bytes())
    for path in folder.rglob("*.safetensors"):
        halve(path)
    for path in folder.rglob("config.json"):
        said = {key: value for key, value in json.loads(path.read_text(encoding="utf-8")).items() if key != "_name_or_path"}
        path.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


def halve(path: Path) -> None:
    """Store a file's numbers in half precision."""
    with open_tensors(path) as file:
        tensors = {full_name(name): t.half() if (t := file.read(name)).dtype == torch.float32 else t for name in file.tensors}
        metadata = dict(file.metadata)
    write_safetensors(path, tensors, metadata, overwrite=True)


def full_name(name: str) -> str:
    """transformers 4 knows a text encoder's weights only with the name that 5 leaves out when it saves."""
    return f"text_model.{name}" if name.startswith(("embeddings.", "encoder.layers.", "final_layer_norm.")) else name
