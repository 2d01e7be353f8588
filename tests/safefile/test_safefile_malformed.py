from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path

import pytest
import torch
from raw_files import entry, raw_file, refused

from lorax.errors import FileError, MalformedFile
from lorax.header import BITS, known_header, parse_header
from lorax.safefile import open_tensors, write_safetensors, write_text


class TestMalformedFiles:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "is empty"),
            (b"\x01\x00", "is cut short: a safetensors file has at least 8 bytes"),
            ((1000).to_bytes(8, "little") + b'{"a"', "is cut short: its header needs 1,008 bytes, 12 are there"),
            ((1 << 40).to_bytes(8, "little") + b"{}", "is not a safetensors file: its header would be"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n", "is a Git LFS pointer, not the file itself; download"),
            (b"\n<!DOCTYPE html><html><body>Log in</body></html>", "is a web page, not a model"),
            (b"<html>", "is a web page"),
            (b"Entry not found", "is a text file, not a file of tensors; it begins 'Entry not found'"),
            ("köln " * 200, "is a text file"),
            (b'{"error":"denied"}', "is a text file"),
        ],
    )
    def test_not_a_file_of_tensors(self, tmp_path: Path, content: bytes | str, message: str):
        (tmp_path / "a.safetensors").write_bytes(content.encode() if isinstance(content, str) else content)
        assert message in refused(tmp_path / "a.safetensors")

    @pytest.mark.parametrize(
        ("header", "data", "message"),
        [
            (b"not json", 0, "its header is not JSON"),
            (b'{"a": \xff}', 0, "its header is not JSON"),
            (b"[" * 50_000, 0, "its header is not JSON"),
            ([], 0, "its header is not a JSON object"),
            (b'{"a":{},"b":{},"a":{}}', 0, "its header names 'a' twice"),
            (b'{"a":{"dtype":"F32","dtype":"F32"}}', 0, "its header names 'dtype' twice"),
            ({"a": 3}, 0, "the header entry of 'a' is not an object"),
            ({"a": {}}, 0, "of dtype None"),
            ({"a": entry("F33")}, 4, "of dtype 'F33'; expected one that safetensors knows"),
            ({"a": entry(shape=[-1])}, 4, "has shape [-1]"),
            ({"a": entry(shape=[True])}, 4, "has shape [True]"),
            ({"a": entry(shape=[1.0])}, 4, "has shape [1.0]"),
            ({"a": entry(shape="1")}, 4, "has shape '1'"),
            ({"a": entry(offsets=[4, 0])}, 4, "has data_offsets [4, 0]"),
            ({"a": entry(offsets=[0])}, 4, "has data_offsets [0]"),
            ({"a": entry(offsets=[-4, 0])}, 4, "has data_offsets"),
            ({"a": entry(shape=[2])}, 4, "of F32 [2] needs 8 bytes, it has 4"),
            ({"a": entry(shape=[10**30], offsets=[0, 4])}, 4, "needs"),
            ({"a": entry(offsets=[4, 8])}, 8, "tensor 'a' starts at byte 4, the one before it ends at 0"),
            ({"a": entry(), "b": entry(offsets=[8, 12])}, 12, "tensor 'b' starts at byte 8, the one before it ends at 4"),
            ({"a": entry(), "b": entry(offsets=[2, 6])}, 6, "tensor 'b' starts at byte 2, the one before it ends at 4"),
            ({"a": entry(), "b": entry()}, 4, "tensor 'b' starts at byte 0"),
            ({"a": entry()}, 3, "is cut short: its tensors need 4 bytes, 3 are there"),
            ({"a": entry()}, 5, "1 bytes follow the last tensor"),
            ({"__metadata__": {"epoch": 3}}, 0, "its metadata 'epoch' is not a string"),
            ({"__metadata__": ["x"]}, 0, "its __metadata__ is not a JSON object of strings"),
        ],
    )
    def test_header_that_lies(self, tmp_path: Path, header: object, data: int, message: str):
        assert message in refused(raw_file(tmp_path / "a.safetensors", header, bytes(data)))

    def test_markup_and_control_characters_stay_on_one_line(self, tmp_path: Path):
        message = refused(raw_file(tmp_path / "a.safetensors", {"a\n\x1b[31m<b>": 3}))
        assert message.isprintable()

    def test_a_long_reason_is_cut(self, tmp_path: Path):
        assert len(refused(raw_file(tmp_path / "a.safetensors", {"a": entry(shape=[-1] * 10_000)}))) < 1000

    def test_damage_anywhere_is_never_another_exception(self, tmp_path: Path):
        write_safetensors(tmp_path / "good", {"a": torch.ones(3), "b.c": torch.zeros(2, 2).half()}, {"k": "v"})
        good, generator, path = (tmp_path / "good").read_bytes(), random.Random(0), tmp_path / "bad"
        for _ in range(400):
            bad = bytearray(good[: generator.randrange(len(good)) if generator.random() < 0.3 else None])
            for _ in range(generator.randrange(3)):
                if bad:
                    bad[generator.randrange(len(bad))] = generator.randrange(256)
            path.write_bytes(bad)
            with contextlib.suppress(FileError), open_tensors(path) as file:
                for name in file.tensors:
                    file.read(name)

    def test_a_file_that_shrinks_while_it_is_open(self, tmp_path: Path):
        write_safetensors(tmp_path / "a.safetensors", {"a": torch.ones(100_000)}, {})
        with open_tensors(tmp_path / "a.safetensors") as file:
            with (tmp_path / "a.safetensors").open("r+b") as other:
                other.truncate(100_000)
            with pytest.raises(MalformedFile, match="became shorter while it was read"):
                file.read("a")

    def test_missing_file_offers_its_neighbour(self, tmp_path: Path):
        write_text(tmp_path / "model.safetensors", "x")
        with pytest.raises(FileError, match=r"does not exist\. Did you mean 'model\.safetensors'\?"):
            open_tensors(tmp_path / "modle.safetensors")
        with pytest.raises(FileError, match="Nor does the folder"):
            open_tensors(tmp_path / "x" / "y")

    def test_folder_instead_of_a_file(self, tmp_path: Path):
        with pytest.raises(FileError, match="is a folder; a file was expected"):
            open_tensors(tmp_path)

    def test_parse_header_knows_every_dtype_of_the_format(self):
        header = {name: {"dtype": name, "shape": [8], "data_offsets": [0, 0]} for name in BITS}
        offset = 0
        for name, bits in BITS.items():
            header[name]["data_offsets"] = [offset, offset + bits]
            offset += bits
        assert len(parse_header(json.dumps(header).encode(), offset).tensors) == len(BITS)


def test_a_header_is_parsed_once_and_known_by_its_content(monkeypatch: pytest.MonkeyPatch) -> None:
    text = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    assert known_header(text, 8) is known_header(bytes(bytearray(text)), 8)
    for _ in range(2):
        with pytest.raises(ValueError, match="cut short"):
            known_header(text, 4)
    assert known_header(text.replace(b"[2]", b"[1,2]"), 8).tensors["a"].shape == (1, 2)
    monkeypatch.setattr("lorax.header.REMEMBERED", len(text) - 1)
    assert known_header(text, 8) is not known_header(text, 8)
