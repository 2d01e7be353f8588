"""Promises of the cache: whole or absent, never wrong, bounded, shared."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lorax import cachelock
from lorax.cache import ABANDONED, Cache, read_entry
from lorax.errors import FileError
from tests.cache.writer import content

KILLS = int(os.environ.get("LORAX_KILLS", "8"))
ROOT = Path(__file__).parents[2]


def start(*words: object) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "tests.cache.writer", *map(str, words)], cwd=ROOT, env=environment)


def number_of(path: Path) -> int:
    return int(path.stem.partition("-")[2])


def assert_right(path: Path) -> None:
    expected, found = content(number_of(path)), read_entry(path)
    assert found.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


def computed_once(cache: Cache, key: str = "a", value: float = 1.0) -> int:
    """How often the entry had to be computed."""
    calls: list[float] = []

    def compute() -> dict[str, torch.Tensor]:
        calls.append(value)
        return {"x": torch.full((64, 64), value)}

    assert float(cache.get_or_compute(key, compute)["x"][0, 0]) == value
    return len(calls)


def test_an_entry_is_computed_once(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "new" / "folder")
    assert [computed_once(cache), computed_once(cache), computed_once(Cache(cache.folder))] == [1, 0, 0]
    assert [path.name for path in cache.entries()] == ["a.safetensors"]
    assert list(cache.folder.glob("*.lock")) == []


@pytest.mark.parametrize("place", [0, 20, -1])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_entry_is_made_anew(tmp_path: Path, damage: str, place: int) -> None:
    cache = Cache(tmp_path)
    computed_once(cache)
    path = tmp_path / "a.safetensors"
    raw = bytearray(path.read_bytes())
    raw[place] ^= 0x41
    path.write_bytes({"flip": bytes(raw), "cut": bytes(raw[:place]), "empty": b""}[damage])
    with pytest.raises(FileError):
        read_entry(path)
    assert [computed_once(cache), computed_once(cache)] == [1, 0]


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit=52_000)
    for age, key in enumerate("abcd"):
        computed_once(cache, key)
        if (tmp_path / f"{key}.safetensors").exists():
            os.utime(tmp_path / f"{key}.safetensors", (1000 + age, 1000 + age))
        if key == "c":
            assert computed_once(cache, "a") == 0
    left = {path.stem for path in cache.entries()}
    assert "d" in left
    assert "a" in left
    assert "b" not in left
    assert sum(path.stat().st_size for path in cache.entries()) <= cache.limit


def test_what_a_killed_process_left_goes_after_a_while(tmp_path: Path) -> None:
    old, young = tmp_path / ".lorax-1.tmp", tmp_path / ".lorax-2.tmp"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * ABANDONED,) * 2)
    computed_once(Cache(tmp_path))
    assert (old.exists(), young.exists()) == (False, True)


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = Cache(tmp_path / "file" / "cache")
    assert [computed_once(cache), computed_once(cache)] == [1, 1]


def test_several_entries_are_computed_at_once(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    computed_once(cache, "b", 2.0)
    asked: list[list[int]] = []

    def compute(missing: object) -> list[dict[str, torch.Tensor]]:
        asked.append(list(missing))  # type: ignore[call-overload]
        return [{"x": torch.tensor(float(i))} for i in asked[-1]]

    found = cache.get_or_compute_all(["a", "b", "c", "a"], compute)
    assert asked == [[0, 2]]
    assert [float(entry["x"].flatten()[0]) for entry in found] == [0.0, 2.0, 2.0, 0.0]


def test_the_claim_of_a_dead_process_does_not_count(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    lock = tmp_path / "a.lock"
    with cachelock.claimed(lock):
        name = lock.read_text().partition(" ")[2]
    lock.write_text(f"{dead.pid} {name}")
    if os.name == "nt":
        os.utime(lock, (0, 0))
    before = time.monotonic()
    assert computed_once(Cache(tmp_path)) == 1
    assert time.monotonic() - before < cachelock.STALE / 4


def test_a_claim_that_grew_old_does_not_count(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    lock.write_text(f"{os.getpid()} another-machine")
    os.utime(lock, (time.time() - 2 * cachelock.STALE,) * 2)
    assert computed_once(Cache(tmp_path)) == 1
    assert not lock.exists()


def test_two_processes_do_not_do_the_same_work_twice(tmp_path: Path) -> None:
    log = tmp_path / "log"
    both = [start(tmp_path / "cache", log, 12, 0.1) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    numbers = [int(line.split()[1]) for line in log.read_text().splitlines()]
    assert sorted(numbers) == list(range(12))


def test_a_claim_whose_maker_was_killed_before_it_signed_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Far under the two minutes that a signed claim counts."""
    monkeypatch.setattr("lorax.cachelock.UNSIGNED", 0.2)
    (tmp_path / "a.lock").touch()
    began = time.monotonic()
    assert computed_once(Cache(tmp_path)) == 1
    assert 0.1 < time.monotonic() - began < 30
    assert list(tmp_path.glob("*.lock")) == []


def test_killed_at_any_instant_it_is_never_wrong_afterwards(tmp_path: Path) -> None:
    """``LORAX_KILLS=100`` for the long form."""
    folder, chance, seen = tmp_path / "cache", random.Random(7), set[Path]()
    for _ in range(KILLS):
        first = max([0, *(number_of(path) - 3 for path in seen)])
        process = start(folder, tmp_path / "log", 1_000_000, 0.0, first)
        deadline = time.monotonic() + 120
        while len(list(folder.glob("*.safetensors"))) <= len(seen) and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(chance.random() * 0.05)
        process.kill()
        process.wait()
        there = set(folder.glob("*.safetensors"))
        assert there > seen, "every writer gets something done, whatever the one before left behind"
        for path in there - seen:
            assert_right(path)
        seen = there
    for path in seen:
        assert_right(path)
    last = start(folder, tmp_path / "log", max(map(number_of, seen)) + 2, 0.0)
    assert last.wait(timeout=120) == 0, "no claim that was left behind holds anybody up"
    assert all(lock.with_suffix(".safetensors").exists() for lock in folder.glob("*.lock"))
