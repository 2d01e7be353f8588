"""What differs between gradio 3.41 (AUTOMATIC1111's WebUI, reForge, Classic) and 4.40 (Forge, Neo)."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

GRADIO_4 = int(gr.__version__.partition(".")[0]) >= 4


def script(code: str) -> dict[str, str]:
    """The argument of an event listener that runs JavaScript before the handler."""
    return {"js" if GRADIO_4 else "_js": code}


def at_once(event: Callable[..., Any], handler: Callable[..., Any], inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
    """Listen to `event` also while an earlier call of the handler is still running."""
    more: dict[str, Any] = {"trigger_mode": "multiple", "show_api": False} if GRADIO_4 else {}
    return event(handler, list(inputs), list(outputs), show_progress="hidden", **more)


def quick(event: Callable[..., Any], handler: Callable[..., Any], inputs: Sequence[Any], outputs: Sequence[Any], **more: Any) -> Any:
    """Listen to `event` with a handler that is done in no time, past the queue."""
    return event(handler, list(inputs), list(outputs), show_progress="hidden", queue=False, **more)


def nothing() -> Any:
    """Leaves a component as it is."""
    return gr.update()


def blocks(title: str, css: str | None = None) -> gr.Blocks:
    """An empty page or tab, that tells nobody that it was opened; on a page of its own with the system's fonts."""
    theme = (
        gr.themes.Default(
            primary_hue="teal", neutral_hue="slate", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        )
        if css
        else None
    )
    return gr.Blocks(title=title, css=css, theme=theme, analytics_enabled=False)


def queue(demo: gr.Blocks, several: int) -> gr.Blocks:
    """Let `several` handlers run side by side, so that Cancel is heard during a transfer."""
    more: dict[str, Any] = {"default_concurrency_limit": several} if GRADIO_4 else {"concurrency_count": several}
    return demo.queue(api_open=False, **more)
