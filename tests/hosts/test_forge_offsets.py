"""Biases and norms in a real Forge, whose built-in takes them in the file as it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hosts import real_forge
from tests.hosts.adapters import Adapters, write_random
from tests.hosts.offsets import write_offsets


@pytest.fixture
def bench() -> Iterator[real_forge.RealForge]:
    if reason := real_forge.why_not():
        pytest.skip(reason)
    made = real_forge.RealForge()
    yield made
    made.close()


def test_biases_and_norms(bench: real_forge.RealForge) -> None:
    adapters = Adapters(bench)
    plain = write_random(adapters.lora / "plain.safetensors", adapters.checkpoint("a"), seed=3)
    write_offsets(adapters.lora / "offset.safetensors", plain, adapters.checkpoint("a"), beside=True)
    bench.post("/lorax/v1/refresh")
    without = bench.picture("a cat <lorax:plain:1>").pixels
    made = bench.picture("a cat <lorax:offset:1>")
    assert made.pixels == bench.picture("a cat <lora:offset:1>").pixels != without
    assert "LoraX problems" not in made.infotext
    bench.switch("b")
    assert bench.picture("a cat <lorax:offset:1>").pixels == bench.picture("a cat <lora:offset:1>").pixels
