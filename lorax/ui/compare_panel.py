"""The compare panel: how alike checkpoints are."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Iterator, Sequence

import gradio as gr

from lorax.transfer.types import Progress
from lorax.ui.comparing import compare
from lorax.ui.running import Part, Runner, controls
from lorax.ui.workplace import Workplace


def add(place: Workplace, runner: Runner) -> Part:
    """Add the panel to the page."""
    names = gr.Dropdown(
        list(place.bases()),
        multiselect=True,
        label="Checkpoints",
        info="Two: layer by layer, the first as the source. More: what it costs to go from each to each.",
        elem_id="lorax_compare_names",
    )
    every = gr.Checkbox(label="All layers", info="Every linear layer and convolution, not only attention; this takes longer.")
    shown = controls("compare", "Compare")
    result = gr.HTML(elem_id="lorax_compare_result")

    def work(progress: Progress, chosen: Sequence[str], all_layers: bool) -> Iterator[tuple[str]]:
        for view in compare(place, chosen or [], all_layers, progress):
            yield (view,)

    runner.connect(shown, work, [names, every], [result])
    return Part([(names, lambda: list(place.bases()))])
