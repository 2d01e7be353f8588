"""What a person does in the panels, through Playwright, in both versions of gradio."""

from __future__ import annotations

import re
from typing import Any


def choose(page: Any, field: str, name: str) -> None:
    """Choose in a list; a list of several takes one more."""
    page.click(f"#{field} input")
    page.fill(f"#{field} input >> nth=0", name)
    page.locator("ul.options li").filter(has_text=re.compile(rf"^\W*{re.escape(name)}\s*$")).first.click()
    page.evaluate("document.activeElement.blur()")


def empty(page: Any, field: str) -> None:
    """Take everything out of a list of several."""
    clear = page.locator(f"#{field} .token-remove.remove-all")
    if clear.is_visible():
        clear.click()


def taken(page: Any, field: str) -> list[str]:
    """What a list of several shows as chosen."""
    return [text.strip() for text in page.locator(f"#{field} .token:not(.token-remove *)").all_inner_texts() if text.strip()]


def panel(page: Any, name: str) -> Any:
    """The button of a panel."""
    return page.locator("#lorax_panels button").filter(has_text=name).first


def look_again(page: Any) -> None:
    """The lists are those of when the page was made."""
    with page.expect_response(re.compile("/run/predict|/api/predict|/queue/")):
        page.click("#lorax_refresh")
    page.wait_for_timeout(500)


def show(page: Any, name: str) -> None:
    """Open a panel."""
    panel(page, name).click()
    page.locator(f"#lorax_{name.lower()}_start:visible").wait_for()


def choose_transfer(page: Any, adapter: str, *targets: str) -> None:
    """In the transfer panel, checkpoints by name without suffix."""
    show(page, "Transfer")
    choose(page, "lorax_transfer_adapter", adapter)
    empty(page, "lorax_transfer_targets")
    for target in targets:
        choose(page, "lorax_transfer_targets", f"{target}.safetensors")


def wait_for(page: Any, element: str, text: str | re.Pattern[str], patience: float | None = None) -> None:
    """Until the element holds the text. patience: milliseconds."""
    page.locator(f"#{element}").filter(has_text=text).first.wait_for(timeout=patience)  # gradio 3 gives two elements the id


def wait_for_preview(page: Any) -> None:
    """Until the transfer panel says what would be done, and looks no further."""
    wait_for(page, "lorax_transfer_result", "What would be done")
    page.wait_for_selector("#lorax_transfer_result .bar", state="detached")
