"""A command's own process: its threads share one heap."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from converter.__main__ import main

SCRIPT = """
import ctypes, threading
from converter.process import settle

{settle}
met = threading.Barrier(4)

def work():
    kept = [bytearray(1000) for _ in range(1000)]
    met.wait()

threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
ctypes.CDLL(None).malloc_stats()
"""


def count_heaps(settle: str) -> int:
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(settle=settle)], capture_output=True, text=True, check=True)
    return done.stderr.count("Arena ")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has a heap for each thread")
def test_threads_share_one_heap() -> None:
    assert count_heaps("") > 1, "what it is against"
    assert count_heaps("settle()") == 1


@pytest.mark.parametrize(("argv", "settled"), [(None, [1]), (["cache", "size"], [])])
def test_only_a_process_of_its_own_is_settled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, argv: list[str] | None, settled: list[int]
) -> None:
    """`main` with arguments is called from another program, whose heap is not ours."""
    calls: list[int] = []
    monkeypatch.setenv("LORAX_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["lorax-convert", "cache", "size"])
    monkeypatch.setattr("converter.__main__.settle", lambda: calls.append(1))
    assert main(argv) == 0
    assert calls == settled
