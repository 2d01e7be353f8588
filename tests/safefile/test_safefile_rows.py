"""Some rows of a tensor, from every kind of file, are those of the whole tensor; a safetensors file is read no further."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lorax.checkpoint import open_checkpoint
from lorax.safefile import open_sharded, open_tensors, write_safetensors
from tests.families import Family

WEIGHT = torch.arange(7 * 12.0).reshape(7, 3, 4).half()


def safetensors(folder: Path) -> Path:
    write_safetensors(folder / "m.safetensors", {"w": WEIGHT}, {})
    return folder / "m.safetensors"


def sharded(folder: Path) -> Path:
    safetensors(folder)
    index = folder / "m.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": "m.safetensors"}}), encoding="utf-8")
    return index


def pickled(folder: Path) -> Path:
    torch.save({"w": WEIGHT}, folder / "m.ckpt")
    return folder / "m.ckpt"


@pytest.mark.parametrize("make", [safetensors, sharded, pickled])
@pytest.mark.parametrize("rows", [(0, 3), (2, 7), (4, 4), (0, 7)])
def test_rows_are_those_of_the_whole_tensor(tmp_path: Path, make: Callable[[Path], Path], rows: tuple[int, int]) -> None:
    path = make(tmp_path)
    with open_sharded(path) if path.suffix == ".json" else open_tensors(path) as file:
        assert torch.equal(file.read("w", rows), WEIGHT[rows[0] : rows[1]])


@pytest.mark.parametrize("columns", [64, 16], ids=["whole blocks in a row", "a block across rows"])
def test_rows_of_a_quantised_tensor(tmp_path: Path, columns: int) -> None:
    gguf = pytest.importorskip("gguf", reason="the gguf package writes the file of this test")
    kind = gguf.GGMLQuantizationType.Q8_0
    weight = torch.randn(8 * 64 // columns, columns, generator=torch.Generator().manual_seed(0))
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "sd1")
    writer.add_array("comfy.gguf.orig_shape.w", list(weight.shape))
    writer.add_tensor("w", gguf.quants.quantize(weight.reshape(8, 64).numpy(), kind), raw_dtype=kind)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    with open_tensors(tmp_path / "m.gguf") as file:
        assert file.tensors["w"].shape == tuple(weight.shape)
        assert torch.equal(file.read("w", (3, 6)), file.read("w")[3:6])


def test_nothing_but_the_rows_is_read(tmp_path: Path) -> None:
    path = safetensors(tmp_path)
    with open_tensors(path) as file:
        path.write_bytes(path.read_bytes()[: -WEIGHT[0].numel() * 2])
        assert torch.equal(file.read("w", (0, 6)), WEIGHT[:6])


def test_first_rows_of_a_layer(sdxl: Family) -> None:
    with open_checkpoint(sdxl["source"]) as base:
        for layer in base.layers.values():
            assert torch.equal(base.read(layer, 5), base.read(layer)[:5]), layer.id
