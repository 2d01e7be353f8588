"""How it looks in real WebUIs: dark, at 200 % zoom, in German, and in img2img."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.browser import WebPage
from tests.panels import choose, panel, wait_for_preview

ROOT = Path(__file__).parents[3]
EMPTY = "Choose an adapter and a checkpoint: what a transfer would do stands here before anything is written."
ZOOMED = {"viewport": {"width": 650, "height": 500}, "device_scale_factor": 2}
"""What a window of 1300 × 1000 shows at 200 %."""
FAINT = """() => {
    const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const light = (rgb) => rgb.slice(0, 3).map((v) => v <= 1 && rgb.srgb ? v : v / 255)
        .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const parsed = (colour) => { const rgb = numbers(colour); rgb.srgb = colour.startsWith('color('); return rgb; };
    const ground = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const rgb = parsed(getComputedStyle(at).backgroundColor);
            if (rgb.length < 4 || rgb[3] === 1) return rgb;
        }
        return [255, 255, 255];
    };
    const own = (element) => [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    return [...document.querySelectorAll('.lorax-view *:not(svg *)')].filter((e) => e.offsetParent && own(e)).map((e) => {
        const a = light(parsed(getComputedStyle(e).color)), b = light(ground(e));
        return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.textContent.trim().slice(0, 40)];
    }).filter(([contrast]) => contrast < 4.5);
}"""
"""Texts of ours whose contrast is under what WCAG 2.1 asks of small letters (1.4.3), with it."""
WIDE = """() => [...document.querySelectorAll('.lorax-view, #lorax_panels')].filter((e) => e.offsetParent)
    .filter((e) => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1 || e.scrollWidth > e.clientWidth + 1)
    .map((e) => e.outerHTML.slice(0, 80))"""
"""Elements of ours that one would have to scroll sideways for."""


def previewed(page: WebPage) -> None:
    """Choose what the transfer panel has to say much about."""
    page.top("LoRA-X")
    panel(page.page, "Transfer").click()
    page.page.click("#lorax_refresh")
    page.page.wait_for_timeout(1500)
    choose(page.page, "lorax_transfer_adapter", "plain")
    choose(page.page, "lorax_transfer_targets", "b.safetensors")
    wait_for_preview(page.page)
    page.page.wait_for_timeout(500)


def compared(page: WebPage) -> None:
    panel(page.page, "Compare").click()
    for name in ("a", "b"):
        choose(page.page, "lorax_compare_names", f"{name}.safetensors")
    page.page.click("#lorax_compare_start")
    page.page.wait_for_selector("#lorax_compare_result svg.heat")
    page.page.wait_for_timeout(500)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_word_of_the_panels_can_be_read(host: Any, new_page: Callable[..., WebPage], theme: str) -> None:
    page = new_page()
    page.open(f"{host.url}/?__theme={theme}")
    assert page.page.evaluate("document.body.classList.contains('dark')") == (theme == "dark")
    previewed(page)
    page.picture(f"{theme}-transfer-{host.kind}")
    assert page.page.evaluate(FAINT) == []
    compared(page)
    page.page.locator("#lorax_compare_result svg.heat").first.scroll_into_view_if_needed()
    page.picture(f"{theme}-compare-{host.kind}")
    assert page.page.evaluate(FAINT) == []
    page.top("txt2img")
    page.tab("LoRA-X")
    page.page.wait_for_timeout(1000)
    page.picture(f"{theme}-cards-{host.kind}")
    page.page.close()
    assert page.errors == []


def test_at_200_percent_nothing_is_cut_off(host: Any, new_page: Callable[..., WebPage]) -> None:
    page = new_page(**ZOOMED)
    page.open(host.url)
    previewed(page)
    page.picture(f"zoom-transfer-{host.kind}")
    assert page.page.evaluate(WIDE) == []
    for name in ("Batch", "Compare", "Inspect"):
        panel(page.page, name).click()
        page.page.locator(f"#lorax_{name.lower()}_start").scroll_into_view_if_needed()
        page.picture(f"zoom-{name.lower()}-{host.kind}")
        assert page.page.evaluate(WIDE) == []
    page.top("txt2img")
    page.tab("LoRA-X")
    page.card("plain").scroll_into_view_if_needed()
    page.card("plain").click()
    assert page.prompt.strip() == "<lorax:plain:1>"
    page.picture(f"zoom-cards-{host.kind}")
    page.page.close()
    assert page.errors == []


@pytest.fixture
def german(host: Any) -> Iterator[dict[str, str]]:
    """The WebUI speaks German; given are our words."""
    host.set(localization="de_DE")
    host.reload_ui()
    yield json.loads((ROOT / "localizations" / "de_DE.json").read_text(encoding="utf-8"))
    host.set(localization="None")
    host.reload_ui()


def test_it_speaks_german(host: Any, new_page: Callable[..., WebPage], german: dict[str, str]) -> None:
    page = new_page()
    page.open(host.url)
    page.page.get_by_text(german["LoRA-X follows the checkpoint"]).first.click()
    page.page.get_by_text(german["Carry adapters to the checkpoint in use"]).first.wait_for()
    page.picture(f"german-accordion-{host.kind}")
    page.tab("LoRA-X")
    page.card("plain").locator(".lorax-badge").get_by_text(german["Made for this"]).wait_for()
    page.picture(f"german-cards-{host.kind}")
    page.top("LoRA-X")
    for text in ("Adapter", "The LoRA or LoRA-X file to carry over.", "Carry to", "Cancel", EMPTY):
        page.page.locator("#lorax_panels").get_by_text(german[text], exact=True).first.wait_for()
    page.page.locator("#lorax_refresh").filter(has_text=german["Look for new files"]).first.wait_for()
    page.picture(f"german-tab-{host.kind}")
    page.page.close()
    assert page.errors == []


def test_img2img_has_the_accordion_too(page: WebPage, host: Any) -> None:
    page.top("img2img")
    head = page.page.locator("#tab_img2img").get_by_text("LoRA-X follows the checkpoint").first
    head.scroll_into_view_if_needed()
    head.click()
    strength = page.page.locator("#script_img2img_lorax_follows_the_checkpoint_lorax_strength input[type=number]").first
    strength.fill("0.5")
    strength.press("Tab")
    page.page.locator("#img2img_prompt textarea").fill("a cat <lorax:plain:1>")
    said = page.from_picture(ROOT / "docs" / "training-styles.png")
    assert "LoraX hashes" in said
    assert "LoraX strength: 0.5" in said
    page.picture(f"img2img-{host.kind}")
