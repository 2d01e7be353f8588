from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lorax.errors import FileError, MalformedFile
from lorax.safefile import open_sharded, write_safetensors


class TestShardedSets:
    def shards(self, folder: Path, **places: str) -> Path:
        write_safetensors(folder / "m-1.safetensors", {"a": torch.ones(2), "extra": torch.ones(1)}, {"format": "pt"}, overwrite=True)
        torch.save({"b": torch.zeros(3)}, folder / "m-2.bin")
        index = folder / "m.safetensors.index.json"
        index.write_text(json.dumps({"metadata": {"total_size": 20}, "weight_map": {"a": "m-1.safetensors", "b": "m-2.bin", **places}}))
        return index

    def test_reads_from_all_shards(self, tmp_path: Path):
        with open_sharded(self.shards(tmp_path)) as file:
            assert list(file.tensors) == ["a", "b"]
            assert file.read("a").equal(torch.ones(2))
            assert file.read("b").equal(torch.zeros(3))
            assert file.metadata == {"format": "pt"}
            assert file.ignored == ("m-1.safetensors: extra",)
            with pytest.raises(MalformedFile, match="has no tensor 'c'"):
                file.read("c")

    @pytest.mark.parametrize("place", ["../m-2.bin", "/etc/passwd", "sub/m-2.bin", "sub\\m-2.bin", "C:\\m-2.bin", "C:m-2.bin", "..", ""])
    def test_shards_elsewhere_are_refused(self, tmp_path: Path, place: str):
        with pytest.raises(MalformedFile, match="shards must lie in its own folder"):
            open_sharded(self.shards(tmp_path, b=place))

    def test_missing_shard_and_missing_tensor(self, tmp_path: Path):
        with pytest.raises(FileError, match=r"needs 'm-3\.bin' in the same folder, which is not there; download it too"):
            open_sharded(self.shards(tmp_path, c="m-3.bin"))
        with pytest.raises(MalformedFile, match=r"promises tensor 'c' in 'm-2\.bin'"):
            open_sharded(self.shards(tmp_path, c="m-2.bin"))

    @pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 1}}', '{"weight_map": []}'])
    def test_index_that_is_none(self, tmp_path: Path, content: str):
        (tmp_path / "i.json").write_text(content)
        with pytest.raises(MalformedFile, match="shard index was expected"):
            open_sharded(tmp_path / "i.json")
