"""The fields behind "Advanced", shared by the transfer and the batch panel; their order is that of `choices.options_from`."""

# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

import gradio as gr

from lorax.ui.choices import METHODS
from lorax.ui.workplace import Workplace


def fields(place: Workplace, name: str) -> list[Any]:
    """name: of the panel, part of the elements' ids."""
    folders = list(place.folders())
    with gr.Accordion("Advanced", open=False, elem_id=f"lorax_{name}_advanced"):
        method = gr.Radio(
            list(METHODS),
            value=next(iter(METHODS)),
            label="Method",
            info="How each layer's change gets to the target. 'auto' is right for nearly everything.",
        )
        with gr.Row():
            rank = _number("Rank k of a projection", "How many of the target's directions it may use; 0: the adapter's own, or 320.")
            out_rank = _number("Rank of the new file", "0: an ordinary LoRA keeps its own, everything else gets at most 64.")
        with gr.Row():
            gate = gr.Number(value=-1, label="Similarity gate", info="Layers less alike than this are left out: 0 to 1, -1: the default.")
            strength = gr.Number(value=1, label="Strength", info="The new file's weights are multiplied by this.")
        with gr.Row():
            only = gr.Textbox(label="Only these layers", info="Patterns, with commas between: up_blocks, *attn2*", placeholder="all")
            skip = gr.Textbox(label="Not these layers", info="Patterns of layers to leave out.", placeholder="none")
        with gr.Row():
            format = gr.Radio(["kohya", "peft"], value="kohya", label="Names in the file", info="kohya for WebUIs, peft for diffusers.")
            dtype = gr.Radio(["fp16", "bf16", "fp32"], value="fp16", label="Numbers in the file", info="fp16 is what programs expect.")
        folder = gr.Dropdown(folders, value=folders[0] if folders else None, label="Save into", info="The folder of the new files.")
        with gr.Row():
            overwrite = gr.Checkbox(label="Overwrite existing files", info="Otherwise a file of that name is left as it is.")
            force = gr.Checkbox(label="Go on where refused", info="Write it even if the bases share too little, as an experiment.")
    return [method, rank, out_rank, gate, strength, only, skip, format, dtype, overwrite, force, folder]


def _number(label: str, info: str) -> Any:
    return gr.Number(value=0, precision=0, minimum=0, label=label, info=info)
