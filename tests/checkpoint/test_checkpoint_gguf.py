"""Bases from GGUF files, as the two usual converters write them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from converter.samples import TINY, sample_checkpoint
from lorax.archs import by_name
from lorax.checkpoint import Checkpoint, open_checkpoint
from lorax.layers import Component
from lorax.safefile import write_safetensors

gguf: Any = pytest.importorskip("gguf", reason="the gguf package writes the files of these tests")
UNET = "model.diffusion_model."


def write(path: Path, tensors: Mapping[str, Tensor], kind: Any | None = None) -> Path:
    """Weights of two or four dimensions in this encoding, reshaped where their rows are no whole blocks; the rest as it is."""
    writer = gguf.GGUFWriter(path, "sd1")
    for name, tensor in tensors.items():
        values = tensor.float().numpy()
        if kind is None or tensor.ndim < 2 or values.size % 32:
            writer.add_tensor(name, tensor.numpy() if tensor.is_floating_point() else values)
            continue
        if values.shape[-1] % 32:
            writer.add_array(f"comfy.gguf.orig_shape.{name}", list(values.shape))
            values = values.reshape(-1, 32)
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    for write_part in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        write_part()
    return path


def largest_difference(first: Checkpoint, second: Checkpoint) -> float:
    assert list(first.layers) == list(second.layers)
    pairs = [(first.read(a), second.read(b)) for a, b in zip(first.layers.values(), second.layers.values(), strict=True)]
    assert all(a.shape == b.shape for a, b in pairs)
    return max(float((a - b).norm() / b.norm()) for a, b in pairs if float(b.norm()))


@pytest.fixture(scope="module")
def tensors() -> Mapping[str, Tensor]:
    return sample_checkpoint(by_name("sd1"), "single_file", TINY)


def test_a_whole_model_is_the_same_in_both_formats(tensors: Mapping[str, Tensor], tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a.safetensors", dict(tensors), {})
    write(tmp_path / "a.gguf", tensors)
    with open_checkpoint(tmp_path / "a.safetensors") as plain, open_checkpoint(tmp_path / "a.gguf") as read:
        assert read.arch == plain.arch
        assert read.components == (Component.UNET, Component.TE1)
        assert read.notes == ()
        assert largest_difference(read, plain) == 0


def test_a_quantised_unet_beside_its_text_encoder(tensors: Mapping[str, Tensor], tmp_path: Path) -> None:
    unet = {name.removeprefix(UNET): t for name, t in tensors.items() if name.startswith(UNET)}
    write_safetensors(tmp_path / "a.safetensors", dict(tensors), {})
    write_safetensors(tmp_path / "te.safetensors", {n: t for n, t in tensors.items() if n.startswith("cond_stage_model.")}, {})
    write(tmp_path / "unet.gguf", unet, gguf.GGMLQuantizationType.Q8_0)
    both = f"{tmp_path / 'unet.gguf'}+{tmp_path / 'te.safetensors'}"
    with open_checkpoint(tmp_path / "a.safetensors") as plain, open_checkpoint(both) as read:
        assert read.arch == plain.arch
        assert 0 < largest_difference(read, plain) < 0.02
        assert [note for note in read.notes if note.startswith("quantised (")] == list(read.notes)
        assert "Q8_0 " in read.notes[0]
        assert torch.isfinite(read.read(next(iter(read.layers.values())))).all()
