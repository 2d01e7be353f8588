"""The tab in real WebUIs as a user sees it: preview, transfer, Cancel, batch, comparison, and what a file is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.hosts.adapters import Adapters, write_sigma
from tests.hosts.browser import WebPage
from tests.hosts.page.strangers import EVIL
from tests.panels import choose, choose_transfer, empty, look_again, panel, show, taken, wait_for, wait_for_preview


def test_a_transfer_is_seen_before_it_is_made_and_has_a_card_at_once(tab: WebPage, host: Any, written: list[str]) -> None:
    result = host.models / "Lora" / "plain-b.safetensors"
    written.append(result.stem)
    choose_transfer(tab.page, "plain", "b")
    wait_for(tab.page, "lorax_transfer_result", "What would be done")
    wait_for(tab.page, "lorax_transfer_result", "Source found: a.safetensors")
    wait_for_preview(tab.page)
    wait_for(tab.page, "lorax_transfer_result", "Should work")
    assert not result.exists()
    tab.page.click("#lorax_transfer_start")
    wait_for(tab.page, "lorax_transfer_result", "Written: plain-b.safetensors")
    assert result.is_file()
    with tab.page.expect_download() as download:
        tab.page.locator("#lorax_transfer_files a").filter(visible=True).last.click()
    assert Path(download.value.path()).read_bytes() == result.read_bytes()
    tab.picture("transfer-done")
    tab.top("txt2img")
    tab.tab("Lora")
    tab.card("plain-b", "lora").wait_for()
    tab.tab("LoRA-X")
    tab.card("plain-b").click()
    assert tab.prompt.strip() == "<lorax:plain-b:1>"
    host.switch("b")
    tab.badge("plain-b", "same base")
    made = tab.generate()
    assert "LoraX hashes" in made
    assert "LoraX problems" not in made


def test_cancel_stops_between_layers_and_leaves_nothing_half_written(tab: WebPage, host: Any, written: list[str]) -> None:
    folder: Path = host.models / "Lora"
    before = set(folder.iterdir())
    targets = [name for name in ("a", "same_a", "b", "same_b") if name in host.checkpoints or name == "same_a"]
    written += [f"sigma-{target}" for target in targets]
    choose_transfer(tab.page, "sigma", *targets)
    tab.page.click("#lorax_transfer_start")
    tab.page.locator("#lorax_panel_transfer .progressDiv").filter(has_text="%").first.wait_for()
    tab.picture("transfer-progress")
    tab.page.click("#lorax_transfer_cancel")
    wait_for(tab.page, "lorax_transfer_result", re.compile("stopped", re.IGNORECASE))
    done = tab.page.locator("#lorax_transfer_result").first.inner_text().count("Written: ")
    made = set(folder.iterdir()) - before
    assert len(made) == done < len(targets)
    assert {path.suffix for path in made} <= {".safetensors"}
    tab.top("txt2img")
    tab.write("a cat")
    assert "Steps: 4" in tab.generate(), "the WebUI goes on with pictures"


def test_a_wish_without_an_adapter_is_one_line(tab: WebPage) -> None:
    show(tab.page, "Compare")
    empty(tab.page, "lorax_compare_names")
    tab.page.click("#lorax_compare_start")
    wait_for(tab.page, "lorax_compare_message", "Not done. choose two checkpoints to compare")


def test_one_failure_does_not_stop_a_batch(tab: WebPage, host: Any, written: list[str]) -> None:
    """One base is nowhere, one result lies there already, and the last is made all the same; a second run keeps it."""
    written += ["sigma-b", "plain-b"]
    theirs = host.models / "Lora" / "sigma-b.safetensors"
    theirs.write_bytes(b"somebody's")
    show(tab.page, "Batch")
    for name in ("stray", "sigma", "plain"):
        choose(tab.page, "lorax_batch_adapters", name)
    choose(tab.page, "lorax_batch_targets", "b.safetensors")
    tab.page.click("#lorax_batch_start")
    wait_for(tab.page, "lorax_batch_table", "3 of 3: 1 done, 2 failed")
    tab.picture("batch")
    said = tab.page.locator("#lorax_batch_table").first.inner_text()
    assert "tick 'Overwrite existing files'" in said
    assert re.search(r"stray\W+b\W+failed", said)
    assert theirs.read_bytes() == b"somebody's"
    made = (host.models / "Lora" / "plain-b.safetensors").read_bytes()
    assert taken(tab.page, "lorax_batch_adapters") == ["stray", "sigma", "plain"], "whatever came into the list"
    tab.page.click("#lorax_batch_start")
    wait_for(tab.page, "lorax_batch_table", "3 of 3: 1 kept, 2 failed")
    assert (host.models / "Lora" / "plain-b.safetensors").read_bytes() == made


def test_two_checkpoints_are_compared_in_pictures_and_three_in_a_table(tab: WebPage) -> None:
    show(tab.page, "Compare")
    empty(tab.page, "lorax_compare_names")
    for name in ("a", "b"):
        choose(tab.page, "lorax_compare_names", f"{name}.safetensors")
    tab.page.click("#lorax_compare_start")
    wait_for(tab.page, "lorax_compare_result", "Close relatives")
    assert tab.page.locator("#lorax_compare_result svg.heat").first.bounding_box()["width"] > 100
    tips = tab.page.locator("#lorax_compare_result svg.heat title").all_text_contents()
    assert any("similarity" in tip and "cosine" in tip for tip in tips), "numbers on hover"
    tab.picture("compare-two")
    choose(tab.page, "lorax_compare_names", "same_a.safetensors")
    tab.page.click("#lorax_compare_start")
    tab.page.wait_for_selector("#lorax_compare_result .matrix td")
    cells = tab.page.locator("#lorax_compare_result .matrix td").all_inner_texts()
    assert len(cells) == 9
    assert cells.count("0.00 / 0.00") == 2, "a and its copy"
    assert "…" not in cells


def test_a_file_tells_what_it_is_and_its_markup_is_text(tab: WebPage) -> None:
    show(tab.page, "Inspect")
    choose(tab.page, "lorax_inspect_name", "adapter: evil")
    tab.page.click("#lorax_inspect_start")
    wait_for(tab.page, "lorax_inspect_result", EVIL)
    assert tab.page.locator("#lorax_inspect_result script, #lorax_inspect_result img").count() == 0
    assert tab.page.evaluate("window.evil") is None
    choose(tab.page, "lorax_inspect_name", "checkpoint: b.safetensors")
    tab.page.click("#lorax_inspect_start")
    wait_for(tab.page, "lorax_inspect_result", re.compile("a base model of the family sd1", re.IGNORECASE))
    assert tab.page.locator("#lorax_inspect_result svg.heat").count() > 0


def test_a_comparison_is_started_with_the_keyboard_alone(tab: WebPage) -> None:
    show(tab.page, "Compare")
    empty(tab.page, "lorax_compare_names")
    panel(tab.page, "Transfer").focus()
    tab.page.keyboard.press("Tab")
    panel(tab.page, "Compare").focus()
    tab.page.keyboard.press("Enter")
    tab.page.focus("#lorax_compare_names input")
    for name in ("a.safetensors", "b.safetensors"):
        tab.page.keyboard.type(name)
        tab.page.wait_for_timeout(400)
        tab.page.keyboard.press("Enter")
    tab.page.focus("#lorax_compare_start")
    tab.page.keyboard.press("Enter")
    wait_for(tab.page, "lorax_compare_result", "Close relatives")


def test_a_new_adapter_is_offered_after_a_look(tab: WebPage, host: Any, written: list[str]) -> None:
    adapters = Adapters(host)
    written.append("late")
    write_sigma(adapters.lora / "late.safetensors", adapters.lora / "plain.safetensors", adapters.checkpoint("a"))
    look_again(tab.page)
    choose_transfer(tab.page, "late", "b")
    wait_for(tab.page, "lorax_transfer_result", "What would be done")
