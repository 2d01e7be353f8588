"""The editor behind a card's tools: description, trigger words, weight, and the checkpoint that the adapter was trained on."""

# pyright: reportMissingImports=false, reportUntypedBaseClass=false

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from lorax.hosts.base import Host
from lorax.retarget.source import SIDECAR_KEY
from lorax.ui.cards import weight_of

KEYS = ("activation text", "preferred weight", "negative text", SIDECAR_KEY, "notes")
"""Of the JSON file beside an adapter, in the order of the fields; all but the source are the built-in's."""


def editor_class(host: Host, base: type) -> type:
    """base: the WebUI's editor of user metadata."""

    class LoraxEditor(base):
        """Keeps its values in the JSON file beside the adapter, as the built-in's cards do."""

        def create_editor(self) -> None:
            import gradio as gr

            self.create_default_editor_elems()
            fields = make_fields([b.name for b in host.bases()])
            self.create_default_buttons()
            shown = [self.edit_name, self.edit_description, self.html_filedata, self.html_preview, *fields]
            self.button_edit.click(fn=self.put_values_into_components, inputs=[self.edit_name_input], outputs=shown).then(
                fn=lambda: gr.update(visible=True), inputs=[], outputs=[self.box]
            )
            self.setup_save_handler(self.button_save, self.save, [self.edit_description, *fields])

        def get_metadata_table(self, name: str) -> list[tuple[str, str]]:
            """File names and hashes are strangers' too."""
            return [(label, html.escape(str(value))) for label, value in super().get_metadata_table(name) if value]

        def put_values_into_components(self, name: str) -> tuple[Any, ...]:
            title, description, table, preview, *_ = super().put_values_into_components(name)
            notes = self.get_user_metadata(name)
            words, _, negative, source, remarks = (str(notes.get(key) or "") for key in KEYS)
            return title, description, table, preview, words, weight_of(notes), negative, source, remarks

        def save(self, name: str, description: str, *values: Any) -> None:
            """A card that is not there is not written: its name may be anything."""
            if name not in self.page.items:
                return
            notes: dict[str, Any] = {**self.get_user_metadata(name), "description": description}
            for key, value in zip(KEYS, values, strict=True):
                if value or key in notes:
                    notes[key] = value
            self.write_user_metadata(name, {key: value for key, value in notes.items() if value or key != SIDECAR_KEY})

    return LoraxEditor


def make_fields(bases: Sequence[str]) -> list[Any]:
    """The widgets of `KEYS`. bases: checkpoints to choose from."""
    import gradio as gr

    return [
        gr.Textbox(label="Trigger words", info="A click on the card adds them to the prompt."),
        gr.Slider(label="Weight", info="What a click inserts behind the name; 0: the WebUI's usual one.", minimum=0, maximum=2, step=0.01),
        gr.Textbox(label="Negative words", info="A click on the card adds them to the negative prompt."),
        gr.Dropdown(
            label="Trained on",
            info="The checkpoint that this adapter was trained on. Empty: what its file says.",
            choices=["", *bases],
            value="",
            allow_custom_value=True,
        ),
        gr.Textbox(label="Notes", info="For yourself.", lines=4),
    ]
