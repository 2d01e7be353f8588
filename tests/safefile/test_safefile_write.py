from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lorax.errors import FileError, WouldOverwrite
from lorax.safefile import TensorInfo, stream_safetensors, write_safetensors, write_text


class TestWritingWholeOrNotAtAll:
    tensors = {"a": torch.ones(4), "b": torch.ones(4), "c": torch.ones(4)}  # noqa: RUF012

    @property
    def entries(self) -> list[TensorInfo]:
        return [TensorInfo(name, "F32", (4,)) for name in self.tensors]

    @pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit, GeneratorExit])
    @pytest.mark.parametrize("existing", [True, False])
    def test_an_exception_in_the_middle_leaves_nothing(self, tmp_path: Path, error: type[BaseException], existing: bool):
        out = tmp_path / "out.safetensors"
        if existing:
            out.write_bytes(b"old")

        def read(name: str) -> torch.Tensor:
            if name == "b":
                assert len(list(tmp_path.iterdir())) == 1 + existing
                raise error
            return self.tensors[name]

        with pytest.raises(error):
            stream_safetensors(out, self.entries, read, {}, overwrite=True)
        assert [p.name for p in tmp_path.iterdir()] == (["out.safetensors"] if existing else [])
        assert not existing or out.read_bytes() == b"old"

    @pytest.mark.parametrize("place", ["fsync", "replace", "write"])
    def test_full_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str):
        def full(*_: object, **__: object):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        if place == "fsync":
            monkeypatch.setattr(os, "fsync", full)
        elif place == "replace":
            monkeypatch.setattr(Path, "replace", full)
        else:
            resource = pytest.importorskip("resource")
            before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        try:
            with pytest.raises(FileError, match=r"out\.safetensors' cannot be written: (No space left|File too large)") as e:
                write_safetensors(tmp_path / "out.safetensors", self.tensors, {})
        finally:
            if place == "write":
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
                signal.signal(signal.SIGXFSZ, handler)
        assert "\n" not in str(e.value)
        assert not list(tmp_path.iterdir())

    def test_a_disk_that_is_too_small_is_refused_before_the_work(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        usage = shutil.disk_usage(tmp_path)._replace(free=100)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        with pytest.raises(FileError, match=r"needs \d+ bytes, 100 are left on that disk"):
            stream_safetensors(tmp_path / "out", self.entries, lambda _: pytest.fail("read"), {})
        assert not list(tmp_path.iterdir())

    def test_folder_that_cannot_be_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        with pytest.raises(FileError, match=r"cannot be written: the folder '.*none' does not exist; create it first"):
            write_safetensors(tmp_path / "none" / "out", self.tensors, {})
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(FileError, match="cannot be written"):
            write_safetensors(tmp_path / "file" / "out", self.tensors, {})
        with pytest.raises(FileError, match="is a folder; a file name was expected"):
            write_safetensors(tmp_path, self.tensors, {}, overwrite=True)

        def denied(*_: object, **__: object):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr(Path, "open", denied)
        with pytest.raises(FileError, match="cannot be written: Permission denied"):
            write_safetensors(tmp_path / "out", self.tensors, {})
        assert [p.name for p in tmp_path.iterdir()] == ["file"]

    def test_nothing_is_overwritten_unasked(self, tmp_path: Path):
        write_text(tmp_path / "a", "old")
        for write in (
            lambda overwrite: write_text(tmp_path / "a", "new", overwrite=overwrite),
            lambda overwrite: write_safetensors(tmp_path / "a", self.tensors, {}, overwrite=overwrite),
        ):
            (tmp_path / "a").write_text("old")
            with pytest.raises(WouldOverwrite, match="exists already; give another name, or ask to overwrite"):
                write(False)
            assert (tmp_path / "a").read_text() == "old"
            write(True)
            assert (tmp_path / "a").read_bytes()[:3] != b"old"

    def test_metadata_may_come_when_the_data_is_written(self, tmp_path: Path):
        at_once, late, seen = tmp_path / "a", tmp_path / "b", []

        def read(name: str) -> torch.Tensor:
            seen.append(name)
            return self.tensors[name]

        write_safetensors(at_once, self.tensors, {"hash": "1234"})
        stream_safetensors(late, self.entries, read, {"hash": "????"}, late=lambda: {"hash": "1234"} if len(seen) == 3 else {})
        assert late.read_bytes() == at_once.read_bytes()

    def test_late_metadata_of_another_length_leaves_nothing(self, tmp_path: Path):
        with pytest.raises(ValueError, match="the header was announced with"):
            write_safetensors(tmp_path / "a", self.tensors, {"hash": "?"}, late=lambda: {"hash": "much longer than that"})
        assert not list(tmp_path.iterdir())

    def test_a_file_that_appears_meanwhile_is_not_overwritten(self, tmp_path: Path):
        def read(name: str) -> torch.Tensor:
            (tmp_path / "a").write_bytes(b"theirs")
            return self.tensors[name]

        with pytest.raises(WouldOverwrite):
            stream_safetensors(tmp_path / "a", self.entries, read, {})
        assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"theirs"]

    @pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
    def test_a_dangling_link_counts_as_existing(self, tmp_path: Path):
        (tmp_path / "a").symlink_to(tmp_path / "none")
        with pytest.raises(WouldOverwrite):
            write_text(tmp_path / "a", "x")

    def test_text_is_utf8_with_its_own_line_ends(self, tmp_path: Path):
        write_text(tmp_path / "a.html", "é\n\r\n\ud800")
        assert (tmp_path / "a.html").read_bytes() == b"\xc3\xa9\n\r\n\\ud800"

    def test_announced_and_delivered_must_agree(self, tmp_path: Path):
        with pytest.raises(ValueError, match="was announced as F32"):
            stream_safetensors(tmp_path / "a", self.entries, lambda _: torch.ones(4).half(), {})
        with pytest.raises(FileError, match="two tensors would be called 'a'"):
            stream_safetensors(tmp_path / "a", [*self.entries, *self.entries], self.tensors.__getitem__, {})
        with pytest.raises(FileError, match="two tensors would be called '__metadata__'"):
            write_safetensors(tmp_path / "a", {"__metadata__": torch.ones(1)}, {})
        with pytest.raises(TypeError, match="which safetensors cannot hold"):
            write_safetensors(tmp_path / "a", {"a": torch.ones(1, dtype=torch.complex128)}, {})
        with pytest.raises(TypeError, match="metadata must be strings"):
            write_safetensors(tmp_path / "a", {}, {"a": 1})  # pyright: ignore[reportArgumentType]
        assert not list(tmp_path.iterdir())

    @pytest.mark.skipif(sys.platform == "win32", reason="signals differ")
    def test_killed_by_ctrl_c(self, tmp_path: Path):
        """A process interrupted while it writes."""
        script = (
            "import signal, sys, time, torch\nfrom pathlib import Path\nfrom lorax.safefile import TensorInfo, stream_safetensors\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in the background inherits that it is ignored
            "def read(name):\n    print('reading', flush=True)\n    time.sleep(30)\n"
            "stream_safetensors(Path(sys.argv[1]), [TensorInfo('a', 'F32', (4,))], read, {})\n"
        )
        command = [sys.executable, "-c", script, str(tmp_path / "out")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            process.stdout.readline()
            assert list(tmp_path.iterdir())
            process.send_signal(signal.SIGINT)
            process.wait(30)
        assert not list(tmp_path.iterdir())
