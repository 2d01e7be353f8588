from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path

import pytest
import safetensors.torch
import torch

from lorax.digest import autov1_hash, sha256_file, sshs_hashes, tensor_digest
from lorax.errors import FileError
from lorax.safefile import write_safetensors


def behind_header(content: bytes) -> bytes:
    return content[8 + int.from_bytes(content[:8], "little") :]


def adapter(megabytes: float) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows = int(megabytes * (1 << 19) / 64)
    return {
        "m.lora_up.weight": torch.randn(rows, 64, generator=generator).half(),
        "m.lora_down.weight": torch.randn(64, 3, generator=generator).half(),
        "m.alpha": torch.tensor(4.0),
    }


@pytest.mark.parametrize("megabytes", [0.01, 1.03, 2.5])
def test_sshs_hashes_are_those_of_the_library_that_trainers_save_with(tmp_path: Path, megabytes: float):
    """As sd-scripts takes them: the file saved with the ss_ metadata alone; then the data, and 64 KiB at 1 MiB."""
    tensors = adapter(megabytes)
    metadata = {"ss_network_dim": "64", "modelspec.title": "not counted", "ss_comment": "é"}
    saved = safetensors.torch.save(tensors, {k: v for k, v in metadata.items() if k.startswith("ss_")})
    model, legacy = sshs_hashes(tensors, metadata)
    assert model == hashlib.sha256(behind_header(saved)).hexdigest()
    window = BytesIO(saved)
    window.seek(0x100000)
    assert legacy == hashlib.sha256(window.read(0x10000)).hexdigest()[:8]


def test_sshs_model_hash_is_what_hosts_compute_from_our_file(tmp_path: Path):
    tensors = adapter(0.1)
    model, legacy = sshs_hashes(tensors, {"ss_x": "1"})
    metadata = {"ss_x": "1", "sshs_model_hash": model, "sshs_legacy_hash": legacy, "lorax.version": "0"}
    write_safetensors(tmp_path / "a.safetensors", tensors, metadata)
    assert hashlib.sha256(behind_header((tmp_path / "a.safetensors").read_bytes())).hexdigest() == model
    assert sshs_hashes(tensors, metadata) == (model, legacy)


def test_sha256_file(tmp_path: Path):
    content = bytes(range(256)) * 10_000
    (tmp_path / "a").write_bytes(content)
    seen: list[tuple[int, int]] = []
    assert sha256_file(tmp_path / "a", lambda done, total: seen.append((done, total))) == hashlib.sha256(content).hexdigest()
    assert seen[-1] == (len(content), len(content))
    assert len(seen) == 3


def test_autov1_hash(tmp_path: Path):
    content = bytes(0x100000) + bytes(range(256)) * 256 + b"behind"
    (tmp_path / "a").write_bytes(content)
    assert autov1_hash(tmp_path / "a") == hashlib.sha256(bytes(range(256)) * 256).hexdigest()[:8]
    (tmp_path / "short").write_bytes(b"x")
    assert autov1_hash(tmp_path / "short") == "e3b0c442"


@pytest.mark.parametrize("function", [sha256_file, autov1_hash])
def test_a_file_that_is_not_there(tmp_path: Path, function: object):
    with pytest.raises(FileError, match="cannot be read: No such file"):
        function(tmp_path / "none")  # pyright: ignore[reportCallIssue]


class TestTensorDigest:
    def test_strides_do_not_matter(self):
        matrix = torch.arange(12.0).reshape(3, 4)
        assert tensor_digest(matrix.T) == tensor_digest(matrix.T.contiguous())

    def test_dtype_shape_and_content_do(self):
        tensors = [
            torch.zeros(4),
            torch.zeros(2, 2),
            torch.zeros(4, dtype=torch.int32),
            torch.zeros(8, dtype=torch.float16),
            torch.zeros(8, dtype=torch.bfloat16),
            torch.tensor([0.0, 0.0, 0.0, -0.0]),
            torch.tensor(0.0),
            torch.zeros(0),
            torch.zeros(0, 1),
            torch.zeros(4).to(torch.float8_e4m3fn),
            torch.zeros(4).to(torch.float8_e5m2),
        ]
        assert len({tensor_digest(t) for t in tensors}) == len(tensors)

    def test_golden(self):
        """Caches are keyed by it: it must never change unseen."""
        assert tensor_digest(torch.arange(3.0)) == hashlib.sha256(b"F32(3,)" + torch.arange(3.0).numpy().tobytes()).hexdigest()
