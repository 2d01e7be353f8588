"""The inspect panel: what a file is."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Iterator

import gradio as gr

from lorax.transfer.types import Progress
from lorax.ui.inspecting import inspect, names
from lorax.ui.running import Part, Runner, controls
from lorax.ui.workplace import Workplace


def add(place: Workplace, runner: Runner) -> Part:
    """Add the panel to the page."""
    name = gr.Dropdown(names(place), label="File", info="Any adapter or checkpoint.", elem_id="lorax_inspect_name")
    hashed = gr.Checkbox(label="With hashes", info="sha256 and the WebUI's old short hash; the whole file is read for them.")
    shown = controls("inspect", "Inspect")
    result = gr.HTML(elem_id="lorax_inspect_result")

    def work(progress: Progress, chosen: str, with_hashes: bool) -> Iterator[tuple[str]]:
        yield (inspect(place, chosen, with_hashes, progress),)

    runner.connect(shown, work, [name, hashed], [result])
    return Part([(name, lambda: names(place))])
