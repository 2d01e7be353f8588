"""The settings page, from `lorax.hosts.base.SETTINGS`."""

# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

from lorax.hosts.base import SETTINGS, Setting

SECTION = ("lorax", "LoRA-X")


def register() -> None:
    """Add the section; called when the WebUI loads the script, for it reads its options before the page is made."""
    from modules import shared

    shared.options_templates.update(shared.options_section(SECTION, {s.key: _option(shared, s) for s in SETTINGS}))


def _option(shared: Any, setting: Setting) -> Any:
    import gradio as gr

    component, arguments = (gr.Radio, {"choices": list(setting.choices)}) if setting.choices else (None, None)
    if isinstance(setting.default, float):  # the page chooses a component for whole numbers only
        component = gr.Number
    option = shared.OptionInfo(setting.default, setting.label, component, arguments, infotext=setting.infotext)
    return option.info(setting.info) if setting.info else option
