"""GGUF files against the gguf package: what it writes and decodes is what we read."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from raw_files import refused

from lorax.errors import MalformedFile
from lorax.safefile import open_tensors
from lorax.safefile.ggml import ENCODINGS
from lorax.safefile.gguf import TYPES

gguf: Any = pytest.importorskip("gguf", reason="the gguf package writes the files of these tests")
QUANTISED = [gguf.GGMLQuantizationType(number) for number in ENCODINGS]
WRITTEN = [q for q in QUANTISED if not q.name.endswith("_K")]


def random_blocks(kind: Any, rows: int = 6, seed: int = 0) -> np.ndarray:
    """Any bytes are blocks; the scales among them are made finite."""
    _, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = np.random.default_rng(seed).integers(0, 256, (rows * 2, size), dtype=np.uint8)
    for at in {"Q2_K": (80, 82), "Q3_K": (108,), "Q6_K": (208,)}.get(kind.name, (0, 2)):
        blocks[:, at + 1] &= 0x3B
    return blocks.reshape(rows, -1)


def write(path: Path, tensors: dict[str, tuple[np.ndarray, Any]], **more: Any) -> Path:
    writer = gguf.GGUFWriter(path, "sd1")
    for key, value in more.items():
        writer.add_array(key, value) if isinstance(value, list) else writer.add_string(key, value)
    for name, (data, kind) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("kind", QUANTISED, ids=lambda kind: kind.name)
def test_every_bit_of_a_block_means_the_same(tmp_path: Path, kind: Any) -> None:
    blocks = random_blocks(kind)
    with open_tensors(write(tmp_path / "a.gguf", {"w": (blocks, kind)})) as file:
        read = file.read("w")
    expected = torch.from_numpy(gguf.quants.dequantize(blocks, kind).copy())
    assert bool(torch.isfinite(expected).all())
    assert read.shape == expected.shape
    torch.testing.assert_close(read, expected, rtol=2e-6, atol=1e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("kind", WRITTEN, ids=lambda kind: kind.name)
def test_weights_come_back_as_near_as_the_encoding_allows(tmp_path: Path, kind: Any) -> None:
    weight = np.random.default_rng(1).standard_normal((48, 64)).astype(np.float32)
    with open_tensors(write(tmp_path / "a.gguf", {"w": (gguf.quants.quantize(weight, kind), kind)})) as file:
        assert (file.tensors["w"].dtype, file.tensors["w"].shape) == ("F32", (48, 64))
        assert file.metadata[TYPES] == f"{kind.name} 1"
        error = float((file.read("w") - torch.from_numpy(weight)).norm()) / float(np.linalg.norm(weight))
    assert error < {"Q4": 0.12, "Q5": 0.06, "Q8": 0.01}[kind.name[:2]]


def test_plain_tensors_are_as_they_are(tmp_path: Path) -> None:
    values = torch.randn(3, 5, 2)
    kinds = gguf.GGMLQuantizationType
    tensors = {
        "full": (values.numpy(), None),
        "half": (values.half().numpy(), None),
        "brain": (values.bfloat16().view(torch.uint8).numpy(), kinds.BF16),
        "scalar": (np.array([2.5], dtype=np.float32), None),
    }
    with open_tensors(write(tmp_path / "a.safetensors", tensors, note="by hand", lengths=[1, 2, 3])) as file:
        assert torch.equal(file.read("full"), values)
        assert torch.equal(file.read("half"), values.half())
        assert torch.equal(file.read("brain"), values.bfloat16())
        assert file.read("scalar").tolist() == [2.5]
        assert file.metadata["note"] == "by hand"
        assert file.metadata["general.architecture"] == "sd1"
        with pytest.raises(MalformedFile, match="Did you mean 'full'"):
            file.read("fulll")


def test_a_reshaped_tensor_has_its_first_shape(tmp_path: Path) -> None:
    """Rows must be whole blocks, so converters lay a 3 × 3 convolution out anew and keep its shape aside."""
    weight = np.random.default_rng(1).standard_normal((8, 36)).astype(np.float32)
    data = gguf.quants.quantize(weight.reshape(9, 32), gguf.GGMLQuantizationType.Q8_0)
    kept = {"comfy.gguf.orig_shape.conv.weight": [8, 4, 3, 3]}
    with open_tensors(write(tmp_path / "a.gguf", {"conv.weight": (data, gguf.GGMLQuantizationType.Q8_0)}, **kept)) as file:
        assert file.tensors["conv.weight"].shape == (8, 4, 3, 3)
        torch.testing.assert_close(file.read("conv.weight"), torch.from_numpy(weight).reshape(8, 4, 3, 3), atol=0.02, rtol=0)
    kept = {"comfy.gguf.orig_shape.conv.weight": [8, 4, 3]}
    write(tmp_path / "b.gguf", {"conv.weight": (data, gguf.GGMLQuantizationType.Q8_0)}, **kept)
    assert "is said to have been (8, 4, 3)" in refused(tmp_path / "b.gguf")


def test_what_is_not_read_says_so(tmp_path: Path) -> None:
    blocks = np.zeros((2, 136), dtype=np.uint8)
    write(tmp_path / "a.gguf", {"w": (blocks, gguf.GGMLQuantizationType.IQ4_XS)})
    assert "has 'w' as IQ4_XS, which is not read; give an fp16, Q8_0 or k-quant copy" in refused(tmp_path / "a.gguf")


def header(*parts: bytes, version: int = 3, tensors: int = 0, entries: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries) + b"".join(parts)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def entry(name: str, *dimensions: int, kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, kind, offset)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"GGUF\x03\x00\x00\x00", "is cut short: its header does not end"),
        (header(version=1), "of version 1; versions 2 and 3 are read"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "of version 50331648"),
        (header(tensors=1 << 40), "promises 1,099,511,627,776 tensors"),
        (header(struct.pack("<Q", 1 << 60), entries=1), "its header does not end"),
        (header(text("a"), struct.pack("<I", 99), entries=1), "a value of type 99"),
        (header(text("a"), struct.pack("<IIQ", 9, 9, 1), entries=1), "a value of type 9"),
        (header(text("general.alignment"), struct.pack("<II", 4, 0), entries=1), "aligned to 0 bytes"),
        (header(entry("w", *[1] * 9), tensors=1), "has 9 dimensions"),
        (header(entry("w", 8, kind=77), tensors=1), "has 'w' as type 77, which is not read"),
        (header(entry("w", 31, kind=8), tensors=1), "rows of 'w' [31] are no multiple of Q8_0's 32 values"),
        (header(entry("w", 2), entry("w", 2), bytes(64), tensors=2), "names 'w' twice"),
        (header(entry("w", 1 << 60), bytes(64), tensors=1), "is cut short: 'w' ends at byte"),
        (header(entry("w", 8, offset=64), bytes(64), tensors=1), "is cut short: 'w' ends at byte"),
    ],
)
def test_a_header_that_lies(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.gguf").write_bytes(content)
    assert message in refused(tmp_path / "a.gguf")
