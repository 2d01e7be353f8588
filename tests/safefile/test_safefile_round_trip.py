from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from raw_files import entry, raw_file, same
from safetensors import safe_open

from lorax.errors import FileError, MalformedFile
from lorax.header import DTYPE_NAMES, TORCH_DTYPES, data_order
from lorax.safefile import TensorInfo, open_tensors, stream_safetensors, write_safetensors


def every_dtype() -> dict[str, torch.Tensor]:
    """One tensor of each dtype that torch and safetensors share, and the odd shapes."""
    random_bytes = torch.randint(0, 256, (64,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    tensors = {f"t.{n}": (random_bytes % 2).bool() if n == "BOOL" else random_bytes.clone().view(d) for n, d in TORCH_DTYPES.items()}
    tensors["scalar"] = torch.tensor(1.5, dtype=torch.float16)
    tensors["empty"] = torch.empty(0, 3)
    tensors["matrix"] = torch.arange(6.0).reshape(2, 3).bfloat16()
    return tensors


class TestReadingAndWriting:
    def test_every_dtype_and_shape_comes_back(self, tmp_path: Path):
        tensors = every_dtype()
        write_safetensors(tmp_path / "a.safetensors", tensors, {"k": "v"})
        with open_tensors(tmp_path / "a.safetensors") as file:
            assert set(file.tensors) == set(tensors)
            assert file.metadata == {"k": "v"}
            for name, tensor in tensors.items():
                assert file.tensors[name] == TensorInfo(name, DTYPE_NAMES[tensor.dtype], tuple(tensor.shape))
                assert same(file.read(name), tensor), name

    def test_bytes_are_those_of_the_safetensors_library(self, tmp_path: Path):
        tensors = {n: t for n, t in every_dtype().items() if n != "t.C64"}
        write_safetensors(tmp_path / "a.safetensors", tensors, {"ü": 'a "quoted"\n\x01\u2028 <b>'})
        assert (tmp_path / "a.safetensors").read_bytes() == safetensors.torch.save(tensors, {"ü": 'a "quoted"\n\x01\u2028 <b>'})

    def test_the_safetensors_library_reads_them(self, tmp_path: Path):
        tensors = every_dtype()
        write_safetensors(tmp_path / "a.safetensors", tensors, {"b": "2", "a": "1"})
        with safe_open(tmp_path / "a.safetensors", "pt") as file:
            assert file.metadata() == {"a": "1", "b": "2"}
            assert all(same(file.get_tensor(name), tensor) for name, tensor in tensors.items())

    def test_golden_header(self, tmp_path: Path):
        tensors = {"b": torch.zeros(2, 1).half(), "a": torch.zeros(1).half(), "z": torch.ones(())}
        write_safetensors(tmp_path / "a.safetensors", tensors, {"y": "é", "x": ""})
        text = (
            '{"__metadata__":{"x":"","y":"é"},"z":{"dtype":"F32","shape":[],"data_offsets":[0,4]},'
            '"a":{"dtype":"F16","shape":[1],"data_offsets":[4,6]},"b":{"dtype":"F16","shape":[2,1],"data_offsets":[6,10]}}'
        ).encode()
        text += b" " * (-len(text) % 8)
        golden = len(text).to_bytes(8, "little") + text + b"\x00\x00\x80\x3f" + bytes(6)
        assert (tmp_path / "a.safetensors").read_bytes() == golden

    def test_write_read_write_gives_equal_bytes(self, tmp_path: Path):
        tensors = every_dtype()
        write_safetensors(tmp_path / "a.safetensors", tensors, {"b": "1", "a": "2"})
        with open_tensors(tmp_path / "a.safetensors") as file:
            again = {name: file.read(name) for name in reversed(list(file.tensors))}
            write_safetensors(tmp_path / "b.safetensors", again, dict(reversed(list(file.metadata.items()))))
        assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()

    def test_no_tensors_and_no_metadata(self, tmp_path: Path):
        write_safetensors(tmp_path / "a.safetensors", {}, {})
        assert (tmp_path / "a.safetensors").read_bytes() == safetensors.torch.save({})
        with open_tensors(tmp_path / "a.safetensors") as file:
            assert not file.tensors

    def test_strided_tensors_are_written_row_major(self, tmp_path: Path):
        matrix = torch.arange(12.0).reshape(3, 4)
        write_safetensors(tmp_path / "a.safetensors", {"t": matrix.T, "c": matrix[:, 1], "g": matrix.clone().requires_grad_()}, {})
        with open_tensors(tmp_path / "a.safetensors") as file:
            assert file.read("t").equal(matrix.T)
            assert file.read("c").equal(matrix[:, 1])
            assert file.read("g").equal(matrix)

    def test_streaming_gives_the_same_file_and_asks_in_its_order(self, tmp_path: Path):
        tensors, asked = every_dtype(), []
        write_safetensors(tmp_path / "a.safetensors", tensors, {"a": "1"})

        def read(name: str) -> torch.Tensor:
            asked.append(name)
            return tensors[name]

        entries = [TensorInfo(n, DTYPE_NAMES[t.dtype], tuple(t.shape)) for n, t in tensors.items()]
        stream_safetensors(tmp_path / "b.safetensors", entries, read, {"a": "1"})
        assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
        assert asked == [e.name for e in data_order(entries)]

    def test_each_read_owns_its_memory(self, tmp_path: Path):
        write_safetensors(tmp_path / "a.safetensors", {"t": torch.ones(3)}, {})
        torch.save({"t": torch.ones(3)}, tmp_path / "a.pt")
        for name in ("a.safetensors", "a.pt"):
            with open_tensors(tmp_path / name) as file:
                file.read("t").zero_()
                assert file.read("t").equal(torch.ones(3))

    def test_an_unknown_name_offers_the_nearest(self, tmp_path: Path):
        write_safetensors(tmp_path / "a.safetensors", {"proj_in.weight": torch.ones(3)}, {})
        with open_tensors(tmp_path / "a.safetensors") as file, pytest.raises(MalformedFile, match=r"Did you mean 'proj_in\.weight'\?"):
            file.read("proj_in.weigth")

    def test_lone_surrogates_in_metadata_are_replaced(self, tmp_path: Path):
        write_safetensors(tmp_path / "a.safetensors", {}, {"a": "x\ud83dy", "b": "\ud83d\ude00"})
        with open_tensors(tmp_path / "a.safetensors") as file:
            assert file.metadata == {"a": "x\ufffdy", "b": "\U0001f600"}
        with safe_open(tmp_path / "a.safetensors", "pt") as file:
            assert file.metadata()["b"] == "\U0001f600"

    def test_dtype_that_this_torch_lacks_is_an_error_only_when_read(self, tmp_path: Path):
        path = raw_file(tmp_path / "a.safetensors", {"x": entry("F4", [8], [0, 4]), "y": entry("U8", [1], [4, 5])}, bytes(5))
        with open_tensors(path) as file:
            assert file.read("y").item() == 0
            with pytest.raises(FileError, match="'x' is F4, which torch"):
                file.read("x")

    def test_null_metadata_is_no_metadata(self, tmp_path: Path):
        with open_tensors(raw_file(tmp_path / "a.safetensors", {"__metadata__": None})) as file:
            assert file.metadata == {}

    def test_suffix_does_not_matter(self, tmp_path: Path):
        write_safetensors(tmp_path / "a.ckpt", {"t": torch.ones(3)}, {})
        torch.save({"t": torch.ones(3)}, tmp_path / "b.safetensors")
        for name in ("a.ckpt", "b.safetensors"):
            with open_tensors(tmp_path / name) as file:
                assert file.read("t").equal(torch.ones(3))

    def test_header_as_long_as_a_pickle_mark(self, tmp_path: Path):
        """A header of 0x280 bytes starts like a pickle of protocol 2."""
        text = json.dumps({"x": entry()}).encode()
        path = raw_file(tmp_path / "a.safetensors", text + b" " * (0x280 - len(text)), bytes(4))
        assert path.read_bytes()[:2] == b"\x80\x02"
        with open_tensors(path) as file:
            assert file.read("x").equal(torch.zeros(1))


def anonymous_memory() -> int:
    """RssAnon in bytes: mapped files do not count."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
class TestMemory:
    def test_one_tensor_of_a_large_file(self, tmp_path: Path):
        end = 1 << 28
        header = {"big": entry("U8", [end], [0, end]), "small": entry("U8", [1024], [end, end + 1024])}
        path = raw_file(tmp_path / "a.safetensors", header)
        os.truncate(path, path.stat().st_size + end + 1024)
        before = anonymous_memory()
        with open_tensors(path) as file:
            file.read("small")
            assert anonymous_memory() - before < 8 << 20
            file.read("big")
            assert anonymous_memory() - before < 32 << 20

    def test_one_tensor_of_a_large_pickle(self, tmp_path: Path):
        torch.save({"big": torch.zeros(1 << 26, dtype=torch.uint8), "small": torch.zeros(1024)}, tmp_path / "a.ckpt")
        before = anonymous_memory()
        with open_tensors(tmp_path / "a.ckpt") as file:
            file.read("small")
            assert anonymous_memory() - before < 16 << 20
