"""The WebUIs of the Forge family that the contract is held against: the made-up one, and the real ones that are here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.hosts import real_forge
from tests.hosts.adapters import Adapters
from tests.hosts.fake_forge import FakeForgeBench

PROJECTED = ("--method", "project", "--rank", "8", "--force")
OF_THE_DAMAGED_FILE = re.compile(r"reading lora \S*corrupt\.safetensors: \w+\nTraceback")
"""Classic reads the whole folder anew for a name that it does not know, and tells of the file that no one can read."""


@pytest.fixture(scope="session", params=["made-up", "FORGE", "REFORGE", "CLASSIC", "NEO"])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if request.param == "made-up":
        made: Any = FakeForgeBench(tmp_path_factory.mktemp("forge"))
    elif reason := real_forge.why_not(request.param):
        pytest.skip(reason)
    else:
        shown = {"show_refiner": True} if request.param == "NEO" else {}  # else it does not undo a swap in place
        made = real_forge.RealForge(request.param, config=shown)
    try:
        made.unloaded = made.trace()["model"]
        Adapters(made).write_ordinary()
        Adapters(made).export("plain", "a", "b", "plain-projected", *PROJECTED)
        yield made
    finally:
        made.close()


@pytest.fixture(autouse=True)
def _as_it_was(bench: Any) -> Iterator[None]:
    """Every test starts on a, and leaves nothing on the model."""
    before = len(bench.log())
    bench.switch("a")
    yield
    said = OF_THE_DAMAGED_FILE.sub("", bench.log()[before:])
    assert "Traceback" not in said, said[said.index("Traceback") :][:3000]
    assert not ours(bench)


def ours(bench: Any) -> list[str]:
    """Patches of <lorax:…> that are on the model."""
    return [i for idents in bench.trace()["patched"].values() for i in idents if i.startswith("lorax:") and not i.endswith("/lora")]
