"""Real WebUIs with their page, and a browser that looks at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.hosts import browser, real_a1111, real_forge
from tests.hosts.adapters import Adapters, write_random, write_sigma
from tests.hosts.browser import WebPage
from tests.hosts.page.strangers import write_evil, write_stray
from tests.panels import look_again

HOSTS: dict[str, tuple[Callable[[], str], Callable[..., Any]]] = {
    "a1111": (real_a1111.why_not, real_a1111.RealA1111),
    "forge": (real_forge.why_not, real_forge.RealForge),
}


@pytest.fixture(scope="session", params=list(HOSTS))
def host(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A WebUI with its page; ``plain`` is a LoRA, ``sigma`` a LoRA-X file, both for a; ``evil`` is full of HTML, ``stray`` of a base that
    is nowhere, and the checkpoint same_a holds a's weights."""
    why_not, start = HOSTS[request.param]
    if reason := why_not() or browser.why_not():
        pytest.skip(reason)
    made = start(page=True)
    try:
        fill(made)
        yield made
    finally:
        made.close()


def fill(host: Any) -> None:
    adapters = Adapters(host)
    write_random(adapters.lora / "plain.safetensors", adapters.checkpoint("a"), seed=3)
    write_sigma(adapters.lorax / "sigma.safetensors", adapters.lora / "plain.safetensors", adapters.checkpoint("a"))
    write_evil(adapters.lora / "plain.safetensors", adapters.lorax / "evil.safetensors")
    write_stray(adapters.lora / "plain.safetensors", adapters.lorax / "stray.safetensors")
    if "same_a" not in host.checkpoints:
        adapters.checkpoint("same_a").symlink_to(adapters.checkpoint("a").resolve())
    for files in ("checkpoints", "loras"):
        host.post(f"/sdapi/v1/refresh-{files}")


@pytest.fixture(scope="session")
def new_page() -> Iterator[Callable[..., WebPage]]:
    with browser.browser() as new:
        yield new


@pytest.fixture(scope="session")
def opened(host: Any, new_page: Callable[..., WebPage]) -> Iterator[WebPage]:
    """One page for all questions: to open it takes longer than they do."""
    made = new_page()
    made.open(host.url)
    yield made
    made.page.close()


@pytest.fixture
def page(opened: WebPage, host: Any, request: pytest.FixtureRequest) -> Iterator[WebPage]:
    """The page with an empty prompt, on checkpoint a; whatever happens in it, its console says no error."""
    host.switch("a")
    opened.errors.clear()
    opened.top("txt2img")
    opened.write("")
    yield opened
    opened.picture(request.node.name)
    opened.top("txt2img")  # elsewhere AUTOMATIC1111's own page stumbles over Escape
    opened.page.keyboard.press("Escape")
    assert opened.errors == []


@pytest.fixture
def tab(page: WebPage) -> Iterator[WebPage]:
    """The page with our tab open."""
    page.top("LoRA-X")
    page.page.wait_for_selector("#lorax_panels")
    look_again(page.page)
    yield page
    page.top("txt2img")


@pytest.fixture
def written(host: Any) -> Iterator[list[str]]:
    """Names of files among the LoRAs that a test makes; they are taken away behind it."""
    names: list[str] = []
    yield names
    for name in names:
        (host.models / "Lora" / f"{name}.safetensors").unlink(missing_ok=True)
    host.post("/lorax/v1/refresh")
