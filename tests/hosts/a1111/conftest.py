"""One running WebUI for the whole contract: the made-up one, then the real one if there is one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.hosts import real_a1111
from tests.hosts.adapters import Adapters
from tests.hosts.fake_a1111 import FakeBench


@pytest.fixture(scope="package", params=["fake", "real"])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if request.param == "real":
        if reason := real_a1111.why_not():
            pytest.skip(reason)
        made = real_a1111.RealA1111()
    else:
        made = FakeBench(tmp_path_factory.mktemp("webui"))
    try:
        Adapters(made).write()
        made.post("/lorax/v1/refresh")
        yield made
    finally:
        made.close()


@pytest.fixture(autouse=True)
def _as_it_was(bench: Any) -> Iterator[None]:
    """Every test starts on a, with the settings as they come."""
    bench.switch("a")
    yield
    assert "Traceback" not in bench.log().replace("Failed reading extension data from Git", "").partition("Startup time")[2], bench.log()[
        -3000:
    ]
