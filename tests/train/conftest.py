"""What the tests of the standalone trainer learn from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.train.pictures import write_pictures
from tests.train.pipelines import diffusers_folder


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pipeline of SD1's layout; not to be changed."""
    return diffusers_folder(tmp_path_factory.mktemp("sd1"), "sd1")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four striped pictures with captions; not to be changed."""
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bases of this test alone, and accelerate as in a new process."""
    from accelerate.state import AcceleratorState

    monkeypatch.setenv("LORAX_CACHE", str(tmp_path / "cache"))
    AcceleratorState._reset_state(reset_partial_state=True)
