"""What differs between gradio 3.41 (AUTOMATIC1111's WebUI, reForge, Classic) and 4.40 (Forge, Neo)."""

# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

import gradio as gr

GRADIO_4 = int(gr.__version__.partition(".")[0]) >= 4


def script(code: str) -> dict[str, str]:
    """The argument of an event listener that runs JavaScript before the handler."""
    return {"js" if GRADIO_4 else "_js": code}


def nothing() -> Any:
    """Leaves a component as it is."""
    return gr.update()


def blocks(title: str, css: str | None = None) -> gr.Blocks:
    """An empty page or tab, that tells nobody that it was opened."""
    return gr.Blocks(title=title, css=css, analytics_enabled=False)


def queue(demo: gr.Blocks, several: int) -> gr.Blocks:
    """Let `several` handlers run side by side, so that Cancel is heard during a transfer."""
    return demo.queue(default_concurrency_limit=several) if GRADIO_4 else demo.queue(concurrency_count=several)
