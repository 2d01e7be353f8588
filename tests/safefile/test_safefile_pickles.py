from __future__ import annotations

import os
import pickle
import shutil
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from raw_files import refused, same

from lorax.errors import FileError, MalformedFile, UnsafeFile
from lorax.safefile import TensorInfo, open_tensors


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"echo ran > {self.path}",)


class Leftover:
    """Stands for a class of a package that trainers leave in their checkpoints."""


class TestPickles:
    @pytest.mark.parametrize("new", [True, False], ids=["zip", "stream"])
    @pytest.mark.parametrize("wrapped", [True, False], ids=["wrapped", "plain"])
    def test_state_dicts(self, tmp_path: Path, new: bool, wrapped: bool):
        tensors = {"a": torch.randn(3, 4), "h": torch.randn(2).half(), "i": torch.arange(3), "s": torch.tensor(2.0)}
        content = {"state_dict": OrderedDict(tensors), "epoch": 3} if wrapped else tensors
        torch.save(content, tmp_path / "a.ckpt", _use_new_zipfile_serialization=new)
        with open_tensors(tmp_path / "a.ckpt") as file:
            assert set(file.tensors) == set(tensors)
            assert file.tensors["a"] == TensorInfo("a", "F32", (3, 4))
            assert all(same(file.read(name), tensor) for name, tensor in tensors.items())
            assert file.ignored == (("epoch",) if wrapped else ())
            with pytest.raises(MalformedFile, match="has no tensor"):
                file.read("epoch")

    def test_views_and_parameters_are_written_out_whole(self, tmp_path: Path):
        matrix = torch.randn(4, 4)
        torch.save({"t": matrix.T, "v": matrix[1:3], "p": torch.nn.Parameter(matrix)}, tmp_path / "a.pt")
        with open_tensors(tmp_path / "a.pt") as file:
            assert file.read("t").equal(matrix.T)
            assert file.read("t").is_contiguous()
            assert file.read("v").equal(matrix[1:3])
            assert not file.read("p").requires_grad

    @pytest.mark.parametrize("new", [True, False], ids=["zip", "stream"])
    def test_code_is_refused_and_does_not_run(self, tmp_path: Path, new: bool):
        torch.save({"a": torch.ones(2), "b": Bomb(tmp_path / "ran")}, tmp_path / "a.ckpt", _use_new_zipfile_serialization=new)
        with pytest.raises(UnsafeFile, match=r"more than tensors \(\w+\.system\), which could run code: convert it to \.safetensors"):
            open_tensors(tmp_path / "a.ckpt")
        assert not (tmp_path / "ran").exists()

    def test_code_in_a_bare_pickle(self, tmp_path: Path):
        (tmp_path / "a.pt").write_bytes(pickle.dumps({"a": Bomb(tmp_path / "ran")}, protocol=2))
        with pytest.raises(FileError):
            open_tensors(tmp_path / "a.pt")
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize("leftover", [np.float64(1.0), Leftover()], ids=["numpy", "trainer"])
    def test_leftovers_are_refused_with_the_way_out(self, tmp_path: Path, leftover: object):
        torch.save({"state_dict": {"a": torch.ones(2)}, "best": leftover}, tmp_path / "a.ckpt")
        with pytest.raises(UnsafeFile, match=r"\(.*(scalar|Leftover)\).*convert it to \.safetensors with a program that you trust") as e:
            open_tensors(tmp_path / "a.ckpt")
        assert "\n" not in str(e.value)

    @pytest.mark.parametrize("content", [{"a": 1}, {}, torch.ones(3), [torch.ones(3)], {"state_dict": {}}])
    def test_pickle_without_a_state_dict(self, tmp_path: Path, content: object):
        torch.save(content, tmp_path / "a.pt")
        assert "state dict" in refused(tmp_path / "a.pt")

    @pytest.mark.parametrize("new", [True, False], ids=["zip", "stream"])
    def test_truncated(self, tmp_path: Path, new: bool):
        torch.save({"a": torch.ones(3000)}, tmp_path / "good", _use_new_zipfile_serialization=new)
        good = (tmp_path / "good").read_bytes()
        for length in (5, 20, 100, 300, 3000, len(good) // 2, len(good) - 1):
            (tmp_path / "a.pt").write_bytes(good[:length])
            with pytest.raises(FileError):
                open_tensors(tmp_path / "a.pt")

    def test_other_zip(self, tmp_path: Path):
        shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path.parent, tmp_path.name)
        refused(tmp_path / "a.zip")

    def test_tensor_of_a_kind_that_no_model_has(self, tmp_path: Path):
        torch.save({"a": torch.eye(3, dtype=torch.complex128)}, tmp_path / "a.pt")
        assert "complex128" in refused(tmp_path / "a.pt")
