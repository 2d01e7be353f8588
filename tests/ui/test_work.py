"""Jobs, their estimates, the wall around the page, and the style sheet."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lorax.errors import LoraxError
from lorax.render.panel_style import panel_style
from lorax.transfer.types import Progress
from lorax.ui.jobs import Estimate, Job, line_of
from lorax.ui.loopback import Loopback
from lorax.ui.wording import in_words_of_a_page


def test_a_job_gives_its_latest_and_can_be_stopped() -> None:
    seen = threading.Event()

    def work(progress: Progress) -> Iterator[int]:
        yield 1
        seen.set()
        for step in range(100_000):
            progress("transferring", step, 100_000)
            seen.wait(0.001)
        yield 2

    job = Job(work)
    assert seen.wait(5)
    job.stop()
    job.wait(5)
    assert (job.running, job.latest, job.stopped) == (False, 1, True)


def test_an_error_in_a_job_is_one_line() -> None:
    def work(progress: Progress) -> Iterator[int]:
        raise LoraxError("first\nsecond: --force writes it all the same, as an experiment")
        yield 0

    job = Job(work)
    job.wait(5)
    assert job.error == "first second: tick 'Go on where refused' to write it all the same, as an experiment"
    assert line_of(ValueError("a\nb")) == "ValueError: a b"


def test_an_estimate_only_grows() -> None:
    estimate, shares = Estimate(), []
    for text, done in (
        ("reading a.safetensors", 10),
        ("matching blocks: reading the source", 5),
        ("matching blocks: reading the target", 1),
        ("comparing the two bases", 5),
        ("aligning channels", 10),
        ("transferring", 5),
        ("[2/2] matching blocks: reading the source", 0),
        ("[2/2] transferring", 9),
    ):
        estimate(text, done, 10)
        shares.append(estimate.share)
    assert shares == sorted(shares)
    assert shares[0] < shares[1] < 0.2 < shares[4] < shares[5] < 0.9 < shares[-1] <= 1.0


TRAINING = ("--resume", "--steps", "--samples", "--prompts", "--learning-rate", "--precision", "--config")


@pytest.mark.parametrize("option", ["--force", "--source", "--checkpoints DIR", "--only", "--device cpu", "-o", *TRAINING])
def test_no_option_of_a_command_line_reaches_the_page(option: str) -> None:
    """Every message of the library that names an option has words for the page."""
    root = Path(__file__).parents[2] / "lorax"
    found = [
        line.strip()
        for folder in ("actions", "transfer", "checkpoint", "formats", "adapter", "train/distill")
        for path in [*(root / folder).rglob("*.py"), root / "train" / "parts.py"]
        for line in path.read_text(encoding="utf-8").splitlines()
        if f" {option}" in line and line.strip().startswith(("raise ", 'f"', '"', "return"))
    ]
    assert [line for line in found if f" {option}" in in_words_of_a_page(line)] == []


def ask(headers: dict[str, str], answer: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What comes back through the wall; answer: what the application behind it sends."""
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in answer:
            await send(message)

    async def keep(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "headers": [(k.encode(), v.encode()) for k, v in headers.items()]}
    asyncio.run(Loopback(app)(scope, None, keep))  # type: ignore[arg-type]
    return sent


PAGE = [
    {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html"), (b"content-length", b"1")]},
    {"type": "http.response.body", "body": b'<link href="https://f" /><script src="https', "more_body": True},
    {"type": "http.response.body", "body": b'://cdn/x.js" async></script><p>kept</p>'},
]


def test_the_page_loads_nothing_from_elsewhere() -> None:
    start, body = ask({"host": "127.0.0.1:7870", "origin": "http://127.0.0.1:7870"}, PAGE)
    assert body["body"] == b"<p>kept</p>"
    assert dict(start["headers"])[b"content-length"] == b"11"


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "127.0.0.1:7870", "origin": "https://example.com"},
        {"host": "127.0.0.1:7870", "origin": "null"},
        {"host": "example.com"},
        {"host": "127.0.0.1:7870", "origin": "http://127.0.0.1:8000"},
        {},
    ],
)
def test_other_pages_are_not_answered(headers: dict[str, str]) -> None:
    start, _ = ask(headers, PAGE)
    assert start["status"] == 403


def test_the_webuis_style_sheet_is_up_to_date() -> None:
    sheet = (Path(__file__).parents[2] / "style.css").read_text(encoding="utf-8")
    assert panel_style() in sheet, "put in what lorax.render.panel_style.panel_style() gives"
