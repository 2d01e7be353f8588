"""Reload UI, unloading, and what the user is told where something is missing; the real WebUI is started anew for each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hosts import real_a1111
from tests.hosts.adapters import Adapters
from tests.hosts.bench import Refused
from tests.hosts.fake_a1111 import FakeBench

Start = Callable[..., real_a1111.RealA1111]


@pytest.fixture
def real() -> Iterator[Start]:
    if reason := real_a1111.why_not():
        pytest.skip(reason)
    made: list[real_a1111.RealA1111] = []

    def start(**arguments: Any) -> real_a1111.RealA1111:
        made.append(real_a1111.RealA1111(**arguments))
        return made[-1]

    yield start
    for one in made:
        one.close()


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeBench]:
    bench = FakeBench(tmp_path)
    yield bench
    bench.close()


def write_plain(bench: Any) -> None:
    adapters = Adapters(bench)
    adapters.write_plain()
    bench.post("/lorax/v1/refresh")


def is_clean(trace: Any) -> bool:
    """The host as it was before the extension came."""
    places = trace["load_networks"] and trace["reload_model_weights"] and trace["module_types"]
    return places and "lorax" not in trace["registered"] and not [n for n in (*trace["loaded"], *trace["patched"]) if "lorax" in n]


def test_unloading_leaves_no_trace_in_the_made_up_one(fake: FakeBench) -> None:
    write_plain(fake)
    plain = fake.picture("a cat")
    ours = fake.picture("a cat <lorax:plain:1>").pixels
    assert ours != plain.pixels
    assert not is_clean(fake.trace())
    for _ in range(2):
        fake.webui.reload_ui(fake.load_scripts)
        assert fake.picture("a cat <lorax:plain:1>").pixels == ours
    fake.webui.reload_ui(lambda: None)
    assert is_clean(fake.trace())
    assert fake.picture("a cat <lorax:plain:1>").pixels == plain.pixels


def test_reload_and_disable_in_the_real_one(real: Start) -> None:
    bench = real(page=True)
    write_plain(bench)
    plain = bench.picture("a cat").pixels
    ours = bench.picture("a cat <lorax:plain:1>").pixels
    assert ours == bench.picture("a cat <lora:plain-for-a:1>").pixels != plain
    for _ in range(2):
        bench.reload_ui()
        assert bench.picture("a cat <lorax:plain:1>").pixels == ours
        assert bench.picture("a cat").pixels == plain
    bench.picture("a cat <lorax:plain:1>")
    assert not is_clean(bench.trace())
    bench.set(disabled_extensions=["lorax"])
    bench.reload_ui()
    assert is_clean(bench.trace()), bench.trace()
    assert bench.picture("a cat <lorax:plain:1>").pixels == plain
    with pytest.raises(Refused):
        bench.get("/lorax/v1/version")
    bench.set(disabled_extensions=[])
    bench.reload_ui()
    assert bench.picture("a cat <lorax:plain:1>").pixels == ours


def test_without_the_built_in_the_user_is_told(real: Start) -> None:
    bench = real(config={"disabled_extensions": ["Lora"]})
    write_plain(bench)
    assert bench.get("/lorax/v1/version")["usable"] is False
    made = bench.picture("a cat <lorax:plain:1>")
    assert made.pixels == bench.picture("a cat").pixels
    assert "is disabled" in made.infotext
    assert "enable it in Extensions" in bench.log()


def test_the_routes_ask_for_the_password_of_the_api(real: Start) -> None:
    bench = real(flags=["--api-auth", "me:secret"], auth="me:secret")
    assert bench.get("/lorax/v1/version")["usable"] is True
    for wrong in ("", "me:wrong", "you:secret"):
        bench.auth = wrong
        for call in (
            lambda: bench.get("/lorax/v1/adapters"),
            lambda: bench.post("/lorax/v1/refresh"),
            lambda: bench.post("/lorax/v1/transfer"),
        ):
            with pytest.raises(Refused) as refused:
                call()
            assert refused.value.status == 401


def test_interrupt_stops_a_transfer(fake: FakeBench) -> None:
    write_plain(fake)
    state = sys.modules["modules.shared"].__dict__["state"]
    state.interrupted = True
    made = fake.picture("a cat <lorax:plain:1>")
    assert made.pixels == fake.picture("a cat").pixels
    assert "the picture was interrupted" in made.infotext
    assert state.textinfo is None
    state.interrupted = False
    assert fake.picture("a cat <lorax:plain:1>").pixels != made.pixels
