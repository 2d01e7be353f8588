"""The page of real WebUIs as a user sees it: cards with badges, a click, a picture, another checkpoint, and the accordion."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from typing import Any

from tests.hosts.adapters import Adapters, write_random
from tests.hosts.browser import WebPage
from tests.hosts.page.strangers import EVIL
from tests.hosts.real_a1111 import pixels

STRENGTH, METHOD = (f"#script_txt2img_lorax_follows_the_checkpoint_lorax_{name}" for name in ("strength", "method"))


def test_a_card_is_clicked_and_follows_the_checkpoint(page: WebPage, host: Any) -> None:
    page.tab("LoRA-X")
    page.badge("plain", "same base")
    page.badge("sigma", "same base")
    page.card("plain").click()
    assert page.prompt.strip() == "<lorax:plain:1>"
    first = page.generate()
    assert re.search(r"Model: a\b", first)
    assert "LoraX hashes" in first
    page.tab("Checkpoints")
    page.card("b", "checkpoints").click()
    page.tab("LoRA-X")
    page.badge("plain", "should work")
    assert "cosine" in (page.card("plain").locator(".lorax-badge").get_attribute("title") or "")
    second = page.generate()
    assert re.search(r"Model: b\b", second)
    assert "LoraX hashes" in second
    assert "LoraX problems" not in first + second
    page.tab("LoRA-X")
    page.card("plain").click()
    assert page.prompt.strip() == "", "a second click takes it out"


def test_it_is_found_by_its_base_and_kind(page: WebPage) -> None:
    page.tab("LoRA-X")
    search = page.page.locator("#txt2img_lora-x_extra_search").first
    box = search if search.evaluate("e => e.matches('input, textarea')") else search.locator("input, textarea").first
    box.fill("lora-x file")
    page.card("plain").wait_for(state="hidden")
    assert page.card("sigma").is_visible()
    assert page.card("sigma").locator(".lorax-base").inner_text() == "for a"
    box.fill("")
    page.card("plain").wait_for()


def test_cards_are_sorted(page: WebPage) -> None:
    page.tab("LoRA-X")
    shown = "[...document.querySelectorAll('#txt2img_lora-x_cards > .card')].map((card) => card.dataset.name)"
    names = sorted(page.page.evaluate(shown))

    def wait_for(order: list[str]) -> None:
        """The WebUI sorts a moment after the click."""
        page.page.wait_for_function(f"order => {shown}.join() === order.join()", arg=order)

    page.page.locator("#txt2img_lora-x_extra_sort_name").first.click()
    wait_for(names)
    for order in (names[::-1], names):
        page.page.locator("#txt2img_lora-x_extra_sort_dir").first.click()
        wait_for(order)


def test_everything_is_done_with_the_keyboard(page: WebPage) -> None:
    page.tab("LoRA-X")
    page.card("sigma").focus()
    page.page.keyboard.press("Enter")
    assert page.prompt.strip() == "<lorax:sigma:1>"
    page.page.keyboard.press("Space")
    assert page.prompt.strip() == ""
    page.card("plain").focus()
    page.page.keyboard.press("Tab")
    assert page.page.evaluate("document.activeElement.dataset.name") == "sigma"


def test_built_in_cards_are_used_through_ours(page: WebPage) -> None:
    page.tab("Lora")
    page.page.locator("#txt2img_lora_extra_refresh").first.click()
    page.card("plain", "lora").locator(".lorax-use").wait_for(state="attached")
    page.card("plain", "lora").hover()
    page.card("plain", "lora").locator(".lorax-use").click()
    assert page.prompt.strip() == "<lorax:plain:1>"
    page.card("plain", "lora").locator(".lorax-use").focus()
    page.page.keyboard.press("Enter")
    assert page.prompt.strip() == ""
    page.card("plain", "lora").click(position={"x": 80, "y": 150})
    assert page.prompt.strip() == "<lora:plain:1>", "the card itself does what it did"


def test_strangers_words_are_text(page: WebPage) -> None:
    page.tab("LoRA-X")
    assert page.card("evil").locator(".description").inner_text().strip() == EVIL
    assert "onerror" in page.card("evil").locator(".lorax-base").inner_text()
    page.card("evil").hover()
    page.card("evil").locator(".edit-button").click()
    page.page.locator(".global-popup .file-metadata:visible").first.wait_for()
    page.page.wait_for_timeout(500)
    page.page.keyboard.press("Escape")
    page.card("evil").click()
    assert EVIL in page.prompt
    assert page.page.evaluate("window.evil") is None


def test_the_user_names_the_base(page: WebPage, host: Any) -> None:
    page.tab("LoRA-X")
    page.card("sigma").hover()
    page.card("sigma").locator(".edit-button").click()
    field = page.page.locator(
        ".global-popup label:has-text('Trained on') input:visible, .global-popup [aria-label='Trained on']:visible"
    ).first
    field.wait_for()
    field.fill("same_a")
    field.press("Enter")
    page.page.locator(".global-popup button:has-text('Save'):visible").first.click()
    page.card("sigma").locator(".lorax-base", has_text="for same_a").wait_for()
    notes = host.models / "Lorax" / "sigma.json"
    assert json.loads(notes.read_text())["lorax source"] == "same_a"
    notes.unlink()


def test_a_new_file_has_a_card_at_once(page: WebPage, host: Any) -> None:
    page.tab("LoRA-X")
    page.badge("plain", "same base")
    adapters = Adapters(host)
    write_random(adapters.lorax / "new.safetensors", adapters.checkpoint("a"), seed=9)
    host.post("/lorax/v1/refresh")
    page.badge("new", "same base")
    (adapters.lorax / "new.safetensors").unlink()
    host.post("/lorax/v1/refresh")


def test_without_its_javascript_only_the_background_is_missing(host: Any, new_page: Callable[..., WebPage]) -> None:
    host.switch("a")
    page = new_page()
    page.page.route(re.compile("lorax_cards"), lambda route: route.fulfill(body="", content_type="text/javascript"))
    page.open(host.url)
    page.tab("LoRA-X")
    for _ in range(20):
        page.page.locator("#txt2img_lora-x_extra_refresh").first.click()
        page.page.wait_for_timeout(3000)
        if page.card("plain").locator(".lorax-badge").get_attribute("data-verdict"):
            break
    assert page.card("plain").locator(".lorax-badge").get_attribute("data-verdict") == "same base"
    page.card("plain").click()
    assert page.prompt.strip() == "<lorax:plain:1>"
    page.page.close()
    assert page.errors == []


def accordion(page: WebPage) -> None:
    page.tab("Generation")
    head = page.page.locator("#tab_txt2img").get_by_text("LoRA-X follows the checkpoint").first
    head.scroll_into_view_if_needed()
    if not page.page.locator(STRENGTH).is_visible():
        head.click()
    page.page.locator(STRENGTH).wait_for()


def test_method_and_strength_are_in_the_infotext_and_come_back(page: WebPage) -> None:
    page.write("a cat <lorax:plain:1>")
    accordion(page)
    strength = page.page.locator(f"{STRENGTH} input[type=number]").first
    strength.fill("0.5")
    strength.press("Tab")
    page.page.locator(METHOD).get_by_text("always project, as in the paper").click()
    made = page.generate()
    assert "LoraX strength: 0.5" in made
    assert "LoraX method" in made
    assert "always project, as in the paper" in made
    page.write("a cat <lorax:plain:1>\nSteps: 4, Sampler: Euler, CFG scale: 5, Seed: 1, Size: 64x64")
    page.page.locator("#txt2img_tools #paste").click()
    page.page.wait_for_function(f"document.querySelector('{STRENGTH} input[type=number]').value == '1'")
    page.write(f"a cat <lorax:plain:1>\n{made[made.index('Steps:') :].splitlines()[0]}")
    page.page.locator("#txt2img_tools #paste").click()
    page.page.wait_for_function(f"document.querySelector('{STRENGTH} input[type=number]').value == '0.5'")
    assert page.page.locator(f"{METHOD} input:checked").input_value() == "always project, as in the paper"
    page.write("a cat <lorax:plain:1>\nSteps: 4, Sampler: Euler, CFG scale: 5, Seed: 1, Size: 64x64")
    page.page.locator("#txt2img_tools #paste").click()
    page.page.wait_for_function(f"document.querySelector('{METHOD} input:checked').value == 'as in Settings'")


def test_comparing_shows_both_pictures(page: WebPage) -> None:
    page.write("a cat <lorax:sigma:1>")
    accordion(page)
    page.page.get_by_label("Compare with plain copy").first.check()
    page.generate()
    assert "the last pictures are the plain copy" in page.page.locator("#html_log_txt2img, #html_info_txt2img").all_inner_texts().__str__()
    assert page.pictures() >= 2
    page.page.get_by_label("Compare with plain copy").first.uncheck()


def axis_number(host: Any, label: str) -> int:
    for script in host.get("/sdapi/v1/script-info"):
        if script["name"].lower() == "x/y/z plot" and not script["is_img2img"]:
            return script["args"][0]["choices"].index(label)
    raise AssertionError(label)


def grid(host: Any, x: tuple[str, str], y: tuple[str, str]) -> Any:
    """The answer to a grid with its single pictures."""
    axes = [value for label, values in (x, y) for value in (axis_number(host, label), values, [])]
    values = [*axes, 0, "", [], True, True, False, False, False, False, False, 0, True]
    return host.post(
        "/sdapi/v1/txt2img",
        {"prompt": "a cat", "width": 64, "height": 64, "steps": 4, "seed": 1, "cfg_scale": 5, "sampler_name": "Euler"}
        | {"script_name": "x/y/z plot", "script_args": values},
    )


def infotexts(answer: Any) -> list[str]:
    """Of every picture in an answer of the API."""
    return json.loads(answer["info"])["infotexts"]


def test_the_grid_of_checkpoints_and_adapters(host: Any) -> None:
    host.switch("a")
    made = grid(host, ("Checkpoint name", "a.safetensors,b.safetensors"), ("[LoRA-X] Adapter", "None,plain"))
    told = infotexts(made)[1:]
    assert [re.search(r"Model: (\w+)", t)[1] for t in told] == ["a", "b", "a", "b"]
    assert ["LoraX hashes" in t for t in told] == [False, False, True, True]
    assert len({pixels(base64.b64decode(i)) for i in made["images"][1:]}) == 4


def test_the_grid_of_methods_and_strengths(host: Any) -> None:
    host.switch("b")
    body = grid(host, ("[LoRA-X] Strength", "0.5,1"), ("[LoRA-X] Adapter", "plain"))
    told = infotexts(body)[1:]
    assert ["LoraX strength: 0.5" in t for t in told] == [True, False]
    body = grid(host, ("[LoRA-X] Method", "copy,project"), ("[LoRA-X] Adapter", "plain"))
    told = infotexts(body)[1:]
    assert ["always copy" in t for t in told] == [True, False]
    assert ["always project" in t for t in told] == [False, True]
    host.switch("a")
