"""Which widget shows a setting of `lorax.hosts.base.SETTINGS`."""

# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

from lorax.hosts.base import Setting


def component_of(setting: Setting) -> tuple[Any, dict[str, Any] | None]:
    """(gradio component, its arguments); None: the WebUI chooses by the type of the default."""
    import gradio as gr

    if setting.choices:
        return gr.Radio, {"choices": list(setting.choices)}
    return (gr.Number, None) if isinstance(setting.default, float) else (None, None)
