from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from baking import (
    TO_Q,
    adapter,
    low_rank,
    refused,
    run,
    weights,
)

from lorax.bake import bake
from lorax.errors import (
    Cancelled,
    FileError,
    WouldOverwrite,
)
from lorax.safefile import open_tensors, write_safetensors


class TestOutput:
    one = (adapter({TO_Q: low_rank()}, metadata={"sshs_model_hash": "abc"}), 0.8)

    def test_metadata(self, base: Path):
        _, out = run(base, self.one)
        with open_tensors(out) as file:
            first = file.metadata
        assert first["modelspec.title"] == "Base"
        assert "modelspec.hash_sha256" not in first
        assert first["modelspec.merged_from"] == "base, style"
        made = {"adapter": "style", "strength": 0.8, "sha256": "abc", "checkpoint": "base"}
        assert json.loads(first["lorax.baked"]) == [made]
        again = base.with_name("again.safetensors")
        bake(out, [self.one], again)
        with open_tensors(again) as file:
            assert json.loads(file.metadata["lorax.baked"]) == [made, {**made, "checkpoint": "out"}]
            assert file.metadata["modelspec.merged_from"] == "base, style, style"

    def test_equal_bytes_every_time(self, base: Path):
        _, out = run(base, self.one)
        first = out.read_bytes()
        run(base, self.one, overwrite=True)
        assert out.read_bytes() == first

    @pytest.mark.parametrize("link", ["same", "symlink", "hardlink"])
    @pytest.mark.parametrize("which", ["checkpoint", "adapter"])
    def test_an_input_is_never_the_output(self, base: Path, link: str, which: str):
        lora = base.with_name("lora.safetensors")
        write_safetensors(lora, {}, {})
        victim = base if which == "checkpoint" else lora
        out = victim if link == "same" else base.with_name("link.safetensors")
        if link == "hardlink":
            os.link(victim, out)
        elif link == "symlink":
            if sys.platform == "win32":
                pytest.skip("links need a privilege there")
            out.symlink_to(victim)
        content = victim.read_bytes()
        with pytest.raises(WouldOverwrite, match="is the input"):
            bake(base, [(adapter({TO_Q: low_rank()}, path=lora), 1.0)], out, overwrite=True)
        assert victim.read_bytes() == content

    def test_existing_output_and_wrong_suffix(self, base: Path):
        base.with_name("out.safetensors").write_bytes(b"mine")
        refused(base, WouldOverwrite, "exists already", self.one)
        with pytest.raises(FileError, match=r"must end in \.safetensors"):
            bake(base, [self.one], base.with_name("out.ckpt"))

    @pytest.mark.parametrize("error", [Cancelled("stopped"), KeyboardInterrupt()])
    def test_stopping_leaves_nothing(self, base: Path, error: BaseException):
        def progress(text: str, done: int, total: int) -> None:
            if done == total // 2:
                raise error

        with pytest.raises(type(error)):
            run(base, self.one, progress=progress)
        assert list(base.parent.iterdir()) == [base]

    def test_progress_counts_tensors(self, base: Path):
        seen: list[tuple[int, int]] = []
        report, _ = run(base, self.one, progress=lambda _, done, total: seen.append((done, total)))
        assert seen == [(i, report.tensors) for i in range(report.tensors + 1)]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_one_tensor_at_a_time_is_in_memory(base: Path):
    """A checkpoint of 12 tensors of 16 MiB more: what is held stays at two of them and the work on one layer."""
    size = 1 << 24
    filler = {f"first_stage_model.{i}": torch.zeros(size, dtype=torch.uint8) for i in range(12)}
    write_safetensors(base, {**weights(base), **filler}, {}, overwrite=True)
    del filler
    peak = 0

    def progress(*_: object) -> None:
        nonlocal peak
        peak = max(peak, anonymous_memory())

    before = anonymous_memory()
    run(base, TestOutput.one, progress=progress)
    assert peak - before < 4 * size


def anonymous_memory() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))
