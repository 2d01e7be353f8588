"""The transfer panel: one adapter to one or several checkpoints, with a preview as soon as they are chosen."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from lorax.errors import LoraxError
from lorax.transfer.types import Progress
from lorax.ui.choices import AUTO, UNKNOWN, options_from
from lorax.ui.distilling import distil
from lorax.ui.downloads import downloadable
from lorax.ui.option_fields import fields
from lorax.ui.running import Part, Previews, Runner, controls
from lorax.ui.transferring import Transfers
from lorax.ui.workplace import Workplace


def add(place: Workplace, transfers: Transfers, runner: Runner) -> Part:
    """Add the panel to the page."""
    with gr.Row(elem_classes="lorax-columns"):
        with gr.Column(scale=2, min_width=320):
            adapter = gr.Dropdown(
                list(place.adapters()), label="Adapter", info="The LoRA or LoRA-X file to carry over.", elem_id="lorax_transfer_adapter"
            )
            source = gr.Dropdown(
                sources(place),
                value=AUTO,
                label="Made for",
                info="The checkpoint that it was trained on.",
                elem_id="lorax_transfer_source",
            )
            targets = gr.Dropdown(
                list(place.bases()),
                multiselect=True,
                label="Carry to",
                info="One or several checkpoints.",
                elem_id="lorax_transfer_targets",
            )
            options = fields(place, "transfer")
            shown = controls("transfer", "Transfer")
            with gr.Accordion("Distill: where weights alone do not carry it", open=False, elem_id="lorax_distill"):
                gr.Markdown(DISTILL)
                steps = gr.Number(value=100, precision=0, minimum=1, label="Training steps", info="More take longer and get nearer.")
                training = controls("distill", "Distill")
        with gr.Column(scale=3, min_width=320):
            result = gr.HTML(EMPTY, elem_id="lorax_transfer_result")
            files = gr.File(label="Download", file_count="multiple", interactive=False, visible=False, elem_id="lorax_transfer_files")

    def preview(progress: Progress, name: str, origin: str, chosen: Sequence[str], *values: Any) -> Iterator[str]:
        found = options_from(*values, device=place.host.options().device)
        for view in transfers.preview(name, origin, chosen or [], found, progress):
            yield view or EMPTY

    def transfer(progress: Progress, name: str, origin: str, chosen: Sequence[str], *values: Any) -> Iterator[tuple[Any, Any]]:
        found = options_from(*values, device=place.host.options().device)
        for view, written in transfers.transfer(name, origin, chosen or [], found, progress):
            yield view, gr.update(value=downloadable(written), visible=bool(written))

    def train(progress: Progress, count: float, name: str, origin: str, chosen: Sequence[str], *values: Any) -> Iterator[tuple[Any, Any]]:
        if len(chosen or []) != 1:
            raise LoraxError("distillation takes one target checkpoint at a time: choose one")
        found = options_from(*values, device=place.host.options().device)
        for view, written in distil(transfers, name, origin, chosen[0], found, int(count or 0), progress):
            yield view, gr.update(value=downloadable(written), visible=bool(written))

    inputs = [adapter, source, targets, *options]
    method, rank, out_rank, gate, _, only, skip, *_ = options
    force = options[10]
    Previews().connect(
        [adapter, source, targets, method, rank, out_rank, gate, only, skip, force], preview, inputs, result, [shown.start, training.start]
    )
    written = runner.connect(shown, transfer, inputs, [result, files])
    distilled = runner.connect(training, train, [steps, *inputs], [result, files])
    lists = [(adapter, lambda: list(place.adapters())), (source, lambda: sources(place)), (targets, lambda: list(place.bases()))]
    return Part(lists, [written, distilled])


DISTILL = (
    "Training on the two models' own samples, without any data: a LoRA on the target learns what the adapter does to its source. "
    "It takes both checkpoints as whole models, minutes on a GPU, and the packages diffusers, transformers and accelerate. The WebUI's own "
    "model stays in the GPU's memory meanwhile: unload it in the settings if that is small."
)
EMPTY = (
    '<div class="lorax-view"><div class="told">Choose an adapter and a checkpoint: what a transfer would do stands here before anything '
    "is written.</div></div>"
)


def sources(place: Workplace) -> list[str]:
    """What can be chosen as the source."""
    return [AUTO, UNKNOWN, *place.bases()]
