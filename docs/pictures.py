"""Makes follow.gif and ui-*.png from the running program: ``python -m docs.pictures [OUT]``, in the repository's folder.

Needs playwright, pillow and a Chromium (tests/hosts/browser.py); for the panels gradio (``pip install -e ".[ui]"``), for the cards a
real WebUI (tests/hosts/real_a1111.py). What is missing is said, and its pictures are left as they are.
"""

from __future__ import annotations

import base64
import io
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.hosts import browser, real_a1111
from tests.hosts.adapters import Adapters, write_random, write_sigma
from tests.hosts.browser import WebPage
from tests.panels import choose, panel, wait_for_preview

New = Callable[..., WebPage]
SEED = 6


def main(out: Path) -> None:
    """All pictures that can be made here."""
    if reason := browser.why_not() or ("" if find_spec("PIL") else "pillow is not installed: it writes the pictures"):
        raise SystemExit(reason)
    with browser.browser() as new:
        if find_spec("gradio"):
            panels(new, out)
        else:
            print("no pictures of the panels: gradio is not installed")
        if reason := real_a1111.why_not():
            print(f"no pictures of the cards: {reason}")
        else:
            cards(new, out)


def panels(new: New, out: Path) -> None:
    """ui-transfer.png, ui-compare.png and ui-inspect.png, on the models of the demo."""
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as address:
        page = new(viewport={"width": 1280, "height": 990}).page
        page.goto(address)
        page.wait_for_selector("#lorax_transfer_adapter input")
        page.wait_for_timeout(1000)
        choose(page, "lorax_transfer_adapter", "sd15-lora")
        choose(page, "lorax_transfer_targets", "bk-sdm-small.safetensors")
        wait_for_preview(page)
        shoot(page, out / "ui-transfer.png")
        panel(page, "Compare").click()
        for name in ("sd15-base", "bk-sdm-small"):
            choose(page, "lorax_compare_names", f"{name}.safetensors")
        page.click("#lorax_compare_start")
        page.wait_for_selector("#lorax_compare_result svg.heat")
        page.set_viewport_size({"width": 1280, "height": 1640})
        shoot(page, out / "ui-compare.png")
        panel(page, "Inspect").click()
        choose(page, "lorax_inspect_name", "adapter: sd15-lora")
        page.click("#lorax_inspect_start")
        page.wait_for_selector("#lorax_inspect_result svg.heat")
        page.set_viewport_size({"width": 1280, "height": 990})
        shoot(page, out / "ui-inspect.png")


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of the page of its own, with what the demo makes."""
    converter = [sys.executable, "-m", "converter"]
    subprocess.run([*converter, "demo", "--out", str(folder / "demo")], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    given = ["--adapters", str(folder / "demo" / "adapters"), "--checkpoints", str(folder / "demo" / "models"), "--port", port]
    process = subprocess.Popen([*converter, "ui", *given])
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}").close()
                break
            except OSError:
                time.sleep(0.3)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def cards(new: New, out: Path) -> None:
    """ui-cards.png and follow.gif: a card is clicked, a picture made, the checkpoint switched, and another picture made."""
    host = real_a1111.RealA1111(page=True)
    try:
        write_adapters(host)
        page = new(viewport={"width": 1180, "height": 960})
        page.open(f"{host.url}/?__theme=light")
        frames = list(followed(page, out / "ui-cards.png"))
    finally:
        host.close()
    save_animation(frames, out / "follow.gif")


def write_adapters(host: Any) -> None:
    """Three for checkpoint a, each with a picture of what it does there."""
    adapters = Adapters(host)
    write_random(adapters.lora / "watercolour.safetensors", adapters.checkpoint("a"), seed=3)
    write_random(adapters.lorax / "ink.safetensors", adapters.checkpoint("a"), seed=4)
    write_sigma(adapters.lorax / "clay.safetensors", adapters.lora / "watercolour.safetensors", adapters.checkpoint("a"))
    host.post("/lorax/v1/refresh")
    for file in (adapters.lora / "watercolour", adapters.lorax / "ink", adapters.lorax / "clay"):
        host.picture(f"<lorax:{file.name}:1>", width=128, height=192)
        file.with_suffix(".png").write_bytes(base64.b64decode(host.last))


def followed(page: WebPage, still: Path) -> Iterator[tuple[bytes, int]]:
    """(picture, milliseconds that it stands) of every scene. still: where the scene of the cards is kept too."""

    def scene(milliseconds: int) -> tuple[bytes, int]:
        page.page.evaluate("scrollTo(0, 0)")
        page.page.wait_for_timeout(800)
        return page.page.screenshot(), milliseconds

    page.tab("LoRA-X")
    page.page.locator("#txt2img_lora-x_extra_refresh").first.click()
    for name in ("clay", "ink", "watercolour"):
        page.badge(name, "same base")
    yield scene(2200)
    page.card("watercolour").click()
    yield scene(1500)
    page.generate(SEED)
    yield scene(2500)
    page.tab("Checkpoints")
    page.card("b", "checkpoints").hover()
    yield scene(1200)
    page.card("b", "checkpoints").click()
    page.tab("LoRA-X")
    for name in ("clay", "ink", "watercolour"):
        page.badge(name, "should work")
    yield scene(2500)
    shoot(page.page, still, 256)
    page.generate(SEED)
    page.page.wait_for_function("/Model: b/.test(document.querySelector('#html_info_txt2img').innerText)")
    yield scene(3000)


def shoot(page: Any, path: Path, colours: int | None = None) -> None:
    """What is seen. colours: at most; pictures of noise take a third of the bytes in 256."""
    from PIL import Image

    page.wait_for_timeout(800)
    seen = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    (seen.quantize(colours, dither=Image.Dither.NONE) if colours else seen).save(path, optimize=True)


def save_animation(frames: list[tuple[bytes, int]], path: Path) -> None:
    """The scenes at seven tenths of their size."""
    from PIL import Image

    pictures = [Image.open(io.BytesIO(data)).convert("RGB") for data, _ in frames]
    small = [p.resize((round(p.width * 0.7), round(p.height * 0.7)), Image.Resampling.LANCZOS) for p in pictures]
    shown = [p.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE) for p in small]
    shown[0].save(path, save_all=True, append_images=shown[1:], duration=[ms for _, ms in frames], loop=0, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
