"""Forecasts: found in the background, kept, given up for a picture, and never in anybody's way."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorax.hosts.base import Forecast, KnownBase, RetargetOptions, Wish
from lorax.retarget import Folders, Retargeter, service
from lorax.retarget.forecast import Forecasts
from tests.families import Family, write_lora

PLAIN = RetargetOptions()


@pytest.fixture
def made(tmp_path: Path, sd1: Family) -> Retargeter:
    (tmp_path / "adapters").mkdir()
    write_lora(tmp_path / "adapters" / "plain.safetensors", sd1)
    (tmp_path / "adapters" / "broken.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{ no header")
    return opened(tmp_path, sd1)


def opened(folder: Path, family: Family) -> Retargeter:
    bases = [KnownBase(family[n], (f"{n}.safetensors",)) for n in ("source", "fine", "other")]
    return Retargeter(Folders((folder / "adapters",), folder / "cache"), lambda: bases)


def wait(made: Retargeter, names: list[str], base: Path, idle: Callable[[], bool] = lambda: True) -> dict[str, Forecast | None]:
    made.foresee(names, KnownBase(base), PLAIN, idle)
    end = time.time() + 20
    while None in (found := made.forecasts(names, KnownBase(base), PLAIN)).values():
        assert time.time() < end, found
        time.sleep(0.02)
    return found


def test_the_verdict_is_that_of_the_transfer(made: Retargeter, sd1: Family) -> None:
    for target, verdict in (("source", "same base"), ("fine", "should work"), ("other", "not transferable")):
        found = wait(made, ["plain"], sd1[target])["plain"]
        assert found is not None
        assert (found.verdict, found.source) == (verdict, "source")
    assert made.carry(Wish("plain"), KnownBase(sd1["fine"]), PLAIN).verdict == "should work"


def test_asking_computes_nothing(made: Retargeter, sd1: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "planned", None)
    assert made.forecasts(["plain", "no such"], KnownBase(sd1["fine"]), PLAIN) == {"plain": None, "no such": None}


def test_a_file_that_cannot_be_used_says_so(made: Retargeter, sd1: Family) -> None:
    found = wait(made, ["broken", "plain"], sd1["fine"])
    assert found["broken"] is not None
    assert found["broken"].verdict == "unreadable"
    assert "broken.safetensors" in found["broken"].reason


def test_it_is_kept_on_disk(made: Retargeter, sd1: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = wait(made, ["plain"], sd1["fine"])
    monkeypatch.setattr(service, "planned", None)
    assert wait(opened(tmp_path, sd1), ["plain"], sd1["fine"]) == first


@pytest.mark.parametrize("content", ["[]", '{"a": 1}', "{", '{"a": ["x"]}'])
def test_a_file_of_the_cache_that_is_no_such_file_counts_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "forecasts.json").write_text(content)
    asked = Forecasts(tmp_path / "forecasts.json", lambda *_: "key", lambda *_: Forecast("weak", ""))
    assert asked.by_content("a", lambda: Forecast("should work", "")).verdict == "should work"


def test_it_waits_while_the_host_is_busy_and_gives_way_to_a_picture(made: Retargeter, sd1: Family) -> None:
    free: list[bool] = []
    made.foresee(["plain"], KnownBase(sd1["fine"]), PLAIN, lambda: bool(free))
    time.sleep(0.3)
    assert made.forecasts(["plain"], KnownBase(sd1["fine"]), PLAIN) == {"plain": None}, "the host is busy"
    started = time.time()
    assert made.carry(Wish("plain"), KnownBase(sd1["fine"]), PLAIN).verdict == "should work"
    assert time.time() - started < 15, "the picture did not wait for the forecast"
    free.append(True)
    assert wait(made, ["plain"], sd1["fine"], lambda: True)["plain"] is not None


def test_a_made_file_fits_the_base_that_it_was_made_for(made: Retargeter, sd1: Family, tmp_path: Path) -> None:
    made.transfer(Wish("plain"), KnownBase(sd1["fine"]), PLAIN, tmp_path / "adapters" / "made.safetensors")
    assert wait(made, ["made"], sd1["fine"])["made"].verdict == "same base"
    found: Any = wait(made, ["made"], sd1["source"])["made"]
    assert found.verdict == "not transferable"
    assert "use the original adapter" in found.reason
