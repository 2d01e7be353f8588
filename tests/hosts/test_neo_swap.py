"""Neo's setting 'Reload "state_dict" Only': the refiner's weights go into the model that is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.hosts import real_forge
from tests.hosts.adapters import Adapters

FIELDS = {
    "refiner_checkpoint": "b.safetensors",
    "refiner_switch_at": 0.5,
    "steps": 4,
    "override_settings": {"refiner_use_steps": True, "refiner_fast_sd": True, "refiner_lora_replacement": "plain-for-a=plain-for-b"},
}
OURS, THEIRS = "a cat <lorax:plain:1>", "a cat <lora:plain-for-{}:1>"
Boot = Callable[..., real_forge.RealForge]


@pytest.fixture
def neo() -> Iterator[Boot]:
    if reason := real_forge.why_not("NEO"):
        pytest.skip(reason)
    made: list[real_forge.RealForge] = []

    def boot(shown: bool, **options: Any) -> real_forge.RealForge:
        made.append(real_forge.RealForge("NEO", config={"show_refiner": shown}, **options))
        adapters = Adapters(made[-1])
        adapters.write_plain()
        adapters.export("plain", "a", "b")
        return made[-1]

    yield boot
    for one in made:
        one.close()


def load_anew(bench: real_forge.RealForge) -> None:
    bench.switch("b")
    bench.picture("a cat")
    bench.switch("a")


@pytest.mark.parametrize("shown", [False, True])
def test_what_the_host_does_by_itself(neo: Boot, shown: bool) -> None:
    """Without this extension the next picture is wrong: where the refiner is not shown in the page the weights are not put back, nor
    swapped again; where it is, they are, but the refiner's LoRA stays, for it is taken for no LoRA. Hence the contract loads anew."""
    bench = neo(shown, extension=False)
    without = bench.picture("a cat").pixels
    first = bench.picture(THEIRS.format("a"), **FIELDS).pixels
    assert bench.picture("a cat").pixels != without
    load_anew(bench)
    assert bench.picture("a cat").pixels == without
    assert (bench.picture(THEIRS.format("a"), **FIELDS).pixels == first) == shown


def test_weights_that_are_not_put_back(neo: Boot) -> None:
    """We go by the weights that are in the model; the host's mark stays when another model comes."""
    bench = neo(shown=False)
    bench.picture(OURS, **FIELDS)
    left = bench.picture(OURS).pixels
    assert left == bench.picture(THEIRS.format("b")).pixels
    load_anew(bench)
    made = [bench.picture(OURS, **fields).pixels for fields in ({}, FIELDS)]
    assert made == [bench.picture(THEIRS.format("a"), **fields).pixels for fields in ({}, FIELDS)]
    assert made[0] != left
