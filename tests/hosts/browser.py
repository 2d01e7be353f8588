"""The page of a WebUI in headless Chromium, through Playwright.

``LORAX_CHROMIUM``      the browser's program (default: ``chromium`` in the path)
``LORAX_SCREENSHOTS``   a folder: every test leaves a picture of the page there, to be looked at
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

OUTSIDE = re.compile(r"net::ERR_(NAME_NOT_RESOLVED|INTERNET_DISCONNECTED|ABORTED)")
"""What the browser says where the WebUI's own page wants something from the network."""
SLOW = 180_000
"""Milliseconds that anything may take on a busy machine."""


def why_not() -> str:
    """Why no browser can be started, or an empty string."""
    if find_spec("playwright") is None:
        return "playwright is not installed: it drives the page"
    return "" if _program() else "LORAX_CHROMIUM is not set and no chromium is in the path"


def _program() -> str | None:
    return os.environ.get("LORAX_CHROMIUM") or shutil.which("chromium")


class WebPage:
    """A page and what its console said; ``page`` is Playwright's."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.errors: list[str] = []
        self._seed = 100
        page.set_default_timeout(SLOW)
        page.on("pageerror", lambda error: self.errors.append(error.stack or str(error)))
        page.on("console", self._heard)

    def _heard(self, message: Any) -> None:
        if message.type == "error" and not OUTSIDE.search(message.text):
            self.errors.append(message.text)

    def open(self, url: str) -> None:
        """Wait until the cards of the built-in are there: they come last."""
        self.page.goto(url, wait_until="domcontentloaded")
        self.page.wait_for_selector("#txt2img_generate")
        self.page.wait_for_selector("#txt2img_lora-x_cards .card", state="attached")
        self.page.wait_for_selector("#txt2img_extra_tabs .extra-networks-controls-div", state="attached")
        self.page.wait_for_timeout(1000)
        before = len(self.errors)
        self._make_small("txt2img")
        self.page.wait_for_timeout(500)
        del self.errors[before:]  # a change of the width is an error in AUTOMATIC1111's own page (onCalcResolutionHires has no outputs)

    def top(self, name: str) -> None:
        """One of the WebUI's own tabs: txt2img, img2img, LoRA-X…"""
        self.page.locator("#tabs > .tab-nav button").filter(has_text=re.compile(rf"^\s*{name}\s*$", re.IGNORECASE)).first.click()

    def picture(self, name: str) -> None:
        """What the page looks like, where somebody wants to see it."""
        if folder := os.environ.get("LORAX_SCREENSHOTS"):
            self.page.screenshot(path=Path(folder) / f"{name}.png")

    def tab(self, name: str) -> None:
        """One of Generation, LoRA-X, Lora, Checkpoints."""
        tabs = self.page.locator("#txt2img_extra_tabs button")
        tabs.filter(has_text=re.compile(rf"^\s*{re.escape(name)}\s*$")).first.click()

    def card(self, name: str, page: str = "lora-x") -> Any:
        return self.page.locator(f'#txt2img_{page}_cards .card[data-name="{name}"]')

    def badge(self, name: str, verdict: str) -> None:
        """Wait until the card says so."""
        self.card(name).locator(f'.lorax-badge[data-verdict="{verdict}"]').wait_for()

    @property
    def prompt(self) -> str:
        return self.page.locator("#txt2img_prompt textarea").input_value()

    def write(self, prompt: str) -> None:
        self.page.locator("#txt2img_prompt textarea").fill(prompt)

    def generate(self, seed: int | None = None) -> str:
        """The infotext of the next picture; every one has a seed of its own, by which it is known."""
        self.tab("Generation")
        return self._generated("txt2img", seed)

    def from_picture(self, path: Path) -> str:
        """The infotext of what img2img makes of a picture."""
        self.page.locator("#mode_img2img input[type=file]").first.set_input_files(path)
        self._make_small("img2img")
        self.page.wait_for_timeout(1000)
        return self._generated("img2img")

    def _generated(self, where: str, seed: int | None = None) -> str:
        self._seed = self._seed + 1 if seed is None else seed
        self._set("seed", self._seed, where)
        self.page.locator(f"#{where}_generate").click()
        self.page.wait_for_function(f"/Seed: {self._seed}\\b/.test(document.querySelector('#html_info_{where}').innerText)")
        return self.page.locator(f"#html_info_{where}").first.inner_text()

    def _make_small(self, where: str) -> None:
        for name, value in (("width", 64), ("height", 64), ("steps", 4)):
            self._set(name, value, where)

    def _set(self, name: str, value: int, where: str) -> None:
        field = self.page.locator(f"#{where}_{name} input[type=number]").first
        field.fill(str(value))
        field.press("Tab")

    def pictures(self) -> int:
        """How many the gallery shows, once the queue is done."""
        self.page.wait_for_timeout(500)
        return self.page.locator("#txt2img_gallery .grid-container img, #txt2img_gallery .thumbnails img").count()


@contextmanager
def browser() -> Iterator[Any]:
    """Gives `new(**options)` → `WebPage`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=_program(), args=["--no-sandbox", "--disable-gpu"])

        def new(**options: Any) -> WebPage:
            return WebPage(chromium.new_page(**{"viewport": {"width": 1300, "height": 1000}, **options}))

        yield new
        chromium.close()
