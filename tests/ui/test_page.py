"""The page itself, served on loopback: by HTTP where gradio is installed, in headless Chromium where that is there too."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.families import Family
from tests.panels import choose, panel, taken, wait_for
from tests.ui.places import Folders, make_folders

CHROMIUM = os.environ.get("LORAX_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_gradio = pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="gradio is not installed: pip install -e .[ui]")
needs_browser = pytest.mark.skipif(
    not CHROMIUM or importlib.util.find_spec("playwright") is None,
    reason="no browser: install playwright, and set LORAX_CHROMIUM to a Chromium",
)
pytestmark = [
    needs_gradio,
    pytest.mark.filterwarnings("ignore"),  # gradio's own, and of the packages it brings
]
PATIENCE = 60_000
"""Milliseconds that a page may take on a busy machine."""


@pytest.fixture(scope="module")
def served(sd1: Family, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Folders]]:
    """(address, folders) of a running page."""
    import uvicorn

    from lorax.ui.standalone import app_of

    folders = make_folders(tmp_path_factory.mktemp("page"), sd1)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app_of(folders.place), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.05)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", folders
        server.should_exit = True
        thread.join(20)


def ask(address: str, **headers: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_page_answers_to_itself_only(served: tuple[str, Folders]) -> None:
    address, _ = served
    status, html = ask(address)
    assert status == 200
    assert 'src="https://' not in html
    assert 'href="https://' not in html
    assert ask(address, Origin="https://example.com")[0] == 403
    assert ask(address, Host="example.com")[0] == 403


def test_files_outside_the_page_are_not_served(served: tuple[str, Folders]) -> None:
    address, folders = served
    for path in (folders.adapters / "style.safetensors", "/etc/passwd"):
        assert ask(f"{address}/file={path}")[0] in (403, 404)


@pytest.fixture
def page(served: tuple[str, Folders]) -> Iterator[Any]:
    """The page in a browser; what its console calls an error, and what it asks of other machines, fails the test."""
    from playwright.sync_api import sync_playwright

    address, _ = served
    wrong: list[str] = []
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        shown = browser.new_page(viewport={"width": 1280, "height": 1000})
        shown.set_default_timeout(PATIENCE)
        shown.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
        shown.on("pageerror", lambda e: wrong.append(str(e)))
        shown.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else wrong.append(r.url))
        shown.goto(address)
        shown.wait_for_selector("#lorax_transfer_adapter input")
        shown.wait_for_timeout(1000)
        yield shown
        browser.close()
    assert wrong == []


@needs_browser
def test_preview_transfer_and_refusal(page: Any, served: tuple[str, Folders]) -> None:
    _, folders = served
    choose(page, "lorax_transfer_adapter", "style")
    choose(page, "lorax_transfer_targets", "fine.safetensors")
    wait_for(page, "lorax_transfer_result", "What would be done")
    wait_for(page, "lorax_transfer_result", "Source found: source.safetensors")
    assert not list(folders.out.iterdir())
    page.click("#lorax_transfer_start")
    wait_for(page, "lorax_transfer_result", "Written: style-fine.safetensors")
    wait_for(page, "lorax_transfer_files", "style-fine")
    assert (folders.out / "style-fine.safetensors").is_file()
    page.click("#lorax_transfer_start")
    wait_for(page, "lorax_transfer_result", "tick 'Overwrite existing files'")


@needs_browser
def test_an_error_is_one_line_and_cancel_stops(page: Any) -> None:
    page.click("#lorax_transfer_start")
    wait_for(page, "lorax_transfer_message", "choose an adapter first")
    panel(page, "Compare").click()
    for name in ("source.safetensors", "fine.safetensors", "other.safetensors"):
        choose(page, "lorax_compare_names", name)
    page.click("#lorax_compare_start")
    page.wait_for_selector("#lorax_compare_bar .bar")
    page.click("#lorax_compare_cancel")
    wait_for(page, "lorax_compare_message", "Stopped")


@needs_browser
def test_markup_in_metadata_is_shown_as_text(page: Any) -> None:
    panel(page, "Inspect").click()
    choose(page, "lorax_inspect_name", "adapter: style")
    page.click("#lorax_inspect_start")
    wait_for(page, "lorax_inspect_result", "<script>document.title = 'taken over'</script>")
    assert page.title() == "LoRA-X"
    assert page.locator("#lorax_inspect_result script, #lorax_inspect_result img").count() == 0


@needs_browser
def test_keyboard_alone_starts_a_comparison(page: Any) -> None:
    panel(page, "Compare").focus()
    page.keyboard.press("Enter")
    page.focus("#lorax_compare_names input")
    for name in ("source.safetensors", "fine.safetensors"):
        page.keyboard.type(name)
        page.wait_for_timeout(400)
        page.keyboard.press("Enter")
    page.focus("#lorax_compare_start")
    page.keyboard.press("Enter")
    page.wait_for_selector("#lorax_compare_result svg.heat")


@needs_browser
def test_what_is_chosen_stays_when_files_come(page: Any, served: tuple[str, Folders]) -> None:
    _, folders = served
    panel(page, "Batch").click()
    for name in ("style", "stranger"):
        choose(page, "lorax_batch_adapters", name)
    new = folders.adapters / "another.safetensors"
    new.write_bytes((folders.adapters / "style.safetensors").read_bytes())
    page.click("#lorax_refresh")
    page.click("#lorax_batch_adapters input")
    page.locator("ul.options li").filter(has_text="another").first.wait_for()
    new.unlink()
    assert taken(page, "lorax_batch_adapters") == ["style", "stranger"]
