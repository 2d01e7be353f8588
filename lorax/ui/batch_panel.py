"""The batch panel: many adapters to many checkpoints, a row for each."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from lorax.render.rows_view import rows_view
from lorax.transfer.types import Progress
from lorax.ui.batching import carry_all
from lorax.ui.choices import AUTO, options_from
from lorax.ui.compat import quick
from lorax.ui.option_fields import fields
from lorax.ui.running import Part, Runner, controls
from lorax.ui.transfer_panel import sources
from lorax.ui.transferring import Transfers
from lorax.ui.workplace import Workplace


def add(place: Workplace, transfers: Transfers, runner: Runner) -> Part:
    """Add the panel to the page."""
    with gr.Row(elem_classes="lorax-columns"):
        with gr.Column(scale=2, min_width=320):
            adapters = gr.Dropdown(
                list(place.adapters()), multiselect=True, label="Adapters", info="The files to carry over.", elem_id="lorax_batch_adapters"
            )
            everything = gr.Button("All adapters", size="sm")
            source = gr.Dropdown(
                sources(place), value=AUTO, label="Made for", info="The checkpoint that all of them, or each of them, was trained on."
            )
            targets = gr.Dropdown(
                list(place.bases()),
                multiselect=True,
                label="Carry to",
                info="Each adapter goes to each.",
                elem_id="lorax_batch_targets",
            )
            resume = gr.Checkbox(
                value=True,
                label="Keep what is there already",
                info="What was made from the same files and settings is not made again.",
            )
            options = fields(place, "batch")
            shown = controls("batch", "Transfer all")
        with gr.Column(scale=3, min_width=320):
            table = gr.HTML(EMPTY, elem_id="lorax_batch_table")

    def work(
        progress: Progress, names: Sequence[str], origin: str, chosen: Sequence[str], keep: bool, *values: Any
    ) -> Iterator[tuple[Any]]:
        found = options_from(*values, device=place.host.options().device)
        for rows in carry_all(transfers, names or [], origin, chosen or [], found, keep, progress):
            yield (rows_view(rows, len(names) * len(chosen)),)

    quick(everything.click, lambda: gr.update(value=list(place.adapters())), [], [adapters])
    written = runner.connect(shown, work, [adapters, source, targets, resume, *options], [table])
    return Part(
        [(adapters, lambda: list(place.adapters())), (source, lambda: sources(place)), (targets, lambda: list(place.bases()))], [written]
    )


EMPTY = (
    '<div class="lorax-view"><div class="told">Every adapter gets a row for every checkpoint. A failure is a row like any other, and the '
    "rest go on.</div></div>"
)
