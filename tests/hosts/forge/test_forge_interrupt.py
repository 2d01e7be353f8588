"""What is said while an adapter is carried, and Interrupt."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.hosts.adapters import Adapters
from tests.hosts.fake_forge import FakeForgeBench

WIDE = ("--method", "project", "--rank", "48", "--force")
TAG = "<lorax:plain:1:method=project:rank=48>"
"""On b, a rank for which nothing is kept yet; in a real host this takes seconds."""


def test_interrupt_in_the_made_up_one(bench: Any) -> None:
    if not isinstance(bench, FakeForgeBench):
        pytest.skip("the next test asks the real one")
    state = sys.modules["modules.shared"].__dict__["state"]
    bench.switch("b")
    state.interrupted = True
    try:
        made = bench.picture("a cat <lorax:plain:1:method=project:rank=5>")
    finally:
        state.interrupted = False
    assert made.pixels == bench.picture("a cat").pixels
    assert "the picture was interrupted" in made.infotext
    assert state.textinfo is None
    assert bench.picture("a cat <lorax:plain:1:method=project:rank=5>").pixels != made.pixels


def test_progress_is_shown_and_interrupt_stops_it(bench: Any) -> None:
    if isinstance(bench, FakeForgeBench):
        pytest.skip("the made-up host makes its pictures before it answers anything else")
    Adapters(bench).export("plain", "a", "b", "plain-wide", *WIDE)
    bench.switch("b")
    bench.set(lorax_warm=False)
    before = len(bench.log())
    with ThreadPoolExecutor(1) as pool:
        body = {"prompt": f"a cat {TAG}", "width": 64, "height": 64, "steps": 2, "seed": 1, "sampler_name": "Euler"}
        answer = pool.submit(bench.post, "/sdapi/v1/txt2img", body)
        said: list[str] = []
        while not answer.done() and not any("/" in line for line in said):
            text = bench.get("/sdapi/v1/progress", skip_current_image="true")["textinfo"]
            said += [text] if str(text).startswith("LoRA-X: ") else []
            time.sleep(0.05)
        bench.post("/sdapi/v1/interrupt")
        answer.result()
    assert any("/" in line for line in said), said
    assert "the picture was interrupted" in bench.log()[before:]
    assert not str(bench.get("/sdapi/v1/progress", skip_current_image="true")["textinfo"]).startswith("LoRA-X")
    made = bench.picture(f"a cat {TAG}")
    assert "LoraX problems" not in made.infotext
    assert made.pixels == bench.picture("a cat <lora:plain-wide:1>").pixels
    bench.set(lorax_warm=True)
