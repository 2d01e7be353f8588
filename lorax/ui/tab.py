"""The tab: transfer, compare and inspect, in a WebUI or on a page of its own."""

# pyright: reportMissingImports=false

from __future__ import annotations

import gradio as gr

from lorax.ui.compat import blocks
from lorax.ui.workplace import Workplace


def build(place: Workplace) -> gr.Blocks:
    """All panels in one ``gr.Blocks``."""
    with blocks("LoRA-X") as page:
        gr.Markdown(f"LoRA-X in {place.title}")
    return page
