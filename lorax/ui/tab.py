"""The tab: transfer, batch, compare and inspect, in a WebUI or on a page of its own."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from lorax.render.markup import tag
from lorax.render.views import hatch, view
from lorax.ui import batch_panel, compare_panel, inspect_panel, transfer_panel
from lorax.ui.compat import blocks, quick, script
from lorax.ui.running import Part, Runner
from lorax.ui.transferring import Transfers
from lorax.ui.workplace import Workplace


def build(place: Workplace, runner: Runner, css: str | None = None) -> gr.Blocks:
    """All panels in one ``gr.Blocks``. css: of a page of its own."""
    transfers = Transfers(place)
    with blocks("LoRA-X", css) as page:
        gr.HTML(hatch())
        if css:
            gr.HTML(view(tag("h1", "LoRA-X"), tag("p", "Carry a LoRA to another checkpoint: no training, no data.", class_="soft")))
        parts: list[Part] = []
        with gr.Tabs(selected="transfer", elem_id="lorax_panels"):
            with gr.TabItem("Transfer", id="transfer", elem_id="lorax_panel_transfer"):
                parts.append(transfer_panel.add(place, transfers, runner))
            with gr.TabItem("Batch", id="batch", elem_id="lorax_panel_batch"):
                parts.append(batch_panel.add(place, transfers, runner))
            with gr.TabItem("Compare", id="compare", elem_id="lorax_panel_compare"):
                parts.append(compare_panel.add(place, runner))
            with gr.TabItem("Inspect", id="inspect", elem_id="lorax_panel_inspect"):
                parts.append(inspect_panel.add(place, runner))
        refresh = gr.Button("Look for new files", size="sm", elem_id="lorax_refresh")
        lists = [each for part in parts for each in part.lists]

        def look_again(*chosen: Any) -> list[Any]:
            place.list_again()
            return [offered(fill(), value) for value, (_, fill) in zip(chosen, lists, strict=True)]

        shown = [component for component, _ in lists]
        quick(refresh.click, look_again, shown, shown)
        for written in (event for part in parts for event in part.written):
            after = quick(written.then, look_again, shown, shown)
            if runner.after:
                after.then(None, **script(runner.after))
    return page


def offered(choices: Sequence[str], chosen: Any) -> Any:
    """A list with new choices, and of what is chosen what there still is: gradio 4 knows it by its place in the list, and forgets."""
    kept = [name for name in chosen if name in choices] if isinstance(chosen, list) else chosen if chosen in choices else None
    return gr.update(choices=list(choices), value=kept)
