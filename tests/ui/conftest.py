"""Folders of small files, and a cache of the session's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.families import Family
from tests.ui.places import Folders, make_folders


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAX_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def folders(sd1: Family, tmp_path: Path) -> Folders:
    return make_folders(tmp_path, sd1)
