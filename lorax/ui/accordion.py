"""The accordion in txt2img and img2img: how the ``<lorax:…>`` of this picture are carried, and a plain copy to compare with."""

# pyright: reportMissingImports=false, reportUntypedBaseClass=false

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from lorax.hosts.base import SETTINGS, interface
from lorax.hosts.base.infotext import HASHES, PROBLEMS
from lorax.hosts.base.pictures import STRENGTH, set_strength
from lorax.hosts.base.settings import METHODS

TITLE = "LoRA-X follows the checkpoint"
AS_SET = "as in Settings"
FOLLOW, METHOD = "LoraX follow", "LoraX method"
COMPARED = "LoraX compared"
DEFAULTS: Mapping[str, str] = {FOLLOW: "True", METHOD: AS_SET, STRENGTH: "1.0"}
"""Infotext entries of the controls and what a picture without them was made with."""

TOLD = {HASHES, PROBLEMS, FOLLOW, STRENGTH, *(s.infotext for s in SETTINGS if s.infotext)}
"""What we say of one picture."""


def script() -> type:
    """The class for the namespace of the script file, where the WebUI looks for it."""
    base, always = interface.script_class()

    class LoraxAccordion(base):
        """Controls of one picture. All of them are neutral as they come, and for requests that do not name them."""

        def title(self) -> str:
            return TITLE

        def show(self, is_img2img: bool) -> Any:
            return always

        def ui(self, is_img2img: bool) -> list[Any]:
            components = controls(self.elem_id)
            self.infotext_fields = list(zip(components, DEFAULTS, strict=False))
            self.paste_field_names = list(DEFAULTS)
            return components

        def before_process(self, p: Any, follow: bool = True, method: str = AS_SET, strength: float = 1.0, compare: bool = False) -> None:
            forget_told(p)
            if compare and not hasattr(p, "lorax_compared") and names_adapters(p):
                p.lorax_compared = plain_copy_of(p)
                interface.expect_pictures(2 * p.n_iter)
            apply(p, follow, method, float(strength))

        def postprocess(self, p: Any, processed: Any, *values: Any) -> None:
            twin = getattr(p, "lorax_compared", None)
            if twin is not None and not interface.interrupted():
                add_pictures(processed, make_twin(twin, p))

    return LoraxAccordion


def controls(elem_id: Any) -> list[Any]:
    """The widgets, in the order of `before_process`. elem_id: gives each its name in the page."""
    import gradio as gr

    with gr.Accordion(TITLE, open=False, elem_id=elem_id("lorax")):
        follow = gr.Checkbox(
            True,
            label="Carry adapters to the checkpoint in use",
            info="For every <lorax:name:1> of the prompt. Off: adapters are copied unchanged, whatever fits by name and shape.",
            elem_id=elem_id("lorax_follow"),
        )
        method = gr.Radio(
            [AS_SET, *METHODS.values()],
            value=AS_SET,
            label="Method",
            info="How adapters are carried, for this picture. Auto suits nearly every adapter.",
            elem_id=elem_id("lorax_method"),
        )
        strength = gr.Slider(
            0.0,
            2.0,
            value=1.0,
            step=0.05,
            label="Strength of carried adapters",
            info="Multiplies the number of every <lorax:name:1>, to make up for what the other checkpoint takes away or adds.",
            elem_id=elem_id("lorax_strength"),
        )
        compare = gr.Checkbox(
            False,
            label="Compare with plain copy",
            info="Makes every picture twice: as set here, and with the adapters copied unchanged.",
            elem_id=elem_id("lorax_compare"),
        )
    return [follow, method, strength, compare]


def forget_told(p: Any) -> None:
    """A grid's pictures share what is told of the one before: drop ours, from a copy."""
    p.extra_generation_params = {key: value for key, value in p.extra_generation_params.items() if key not in TOLD}


def apply(p: Any, follow: bool, method: str, strength: float) -> None:
    """What the controls say, where a request or a grid has not said otherwise."""
    chosen = METHODS["copy"] if not follow else method
    if chosen != AS_SET:
        p.override_settings = {"lorax_method": chosen, **p.override_settings}
    set_strength(p, strength)
    if not follow:
        p.extra_generation_params[FOLLOW] = "False"


def names_adapters(p: Any) -> bool:
    """There is something to compare, and no grid that makes many pictures of its own."""
    chosen_script = p.script_args[0] if getattr(p, "script_args", None) else 0
    return "<lorax:" in f"{p.prompt} {getattr(p, 'hr_prompt', '')}" and not chosen_script


def plain_copy_of(p: Any) -> Any:
    """The same request with adapters copied unchanged, before the WebUI has worked on it."""
    twin = copy.copy(p)
    twin.lorax_compared, twin.comments = None, {}
    twin.override_settings = {**p.override_settings, "lorax_method": METHODS["copy"]}
    twin.extra_generation_params = {**p.extra_generation_params, COMPARED: "plain copy"}
    twin.styles = list(getattr(p, "styles", None) or [])
    return twin


def make_twin(twin: Any, p: Any) -> Any:
    """Its pictures, from the seeds that the first ones had."""
    twin.seed, twin.subseed = p.all_seeds[0], p.all_subseeds[0]
    return interface.make_picture(twin)


def add_pictures(processed: Any, others: Any) -> None:
    """Single pictures go behind the others, with what was said of each."""
    first = others.index_of_first_image
    processed.images.extend(others.images[first:])
    processed.infotexts.extend(others.infotexts[first:])
    for name in ("all_prompts", "all_negative_prompts", "all_seeds", "all_subseeds"):
        getattr(processed, name).extend(getattr(others, name))
    processed.comments += f"LoRA-X: the last pictures are the plain copy, to compare with\n{others.comments}"


def paste(infotext: str, params: dict[str, Any]) -> None:
    """What an infotext does not name was neutral: the controls go back."""
    if "<lorax:" in str(params.get("Prompt", "")):
        for key, value in DEFAULTS.items():
            params.setdefault(key, value)


def install() -> None:
    interface.on_paste(paste)
