"""Loaded into Forge by the tests: tells what stands in the places that LoRA-X takes, and makes pictures within pictures."""

import copy
import functools
import hashlib
import sys
from pathlib import Path

from modules import extra_networks, processing, script_callbacks, scripts, sd_models, shared

try:
    from modules_forge import main_entry
except ImportError:  # hosts that load their model at once have no choice of text encoders
    main_entry = None

_seen = shared.__dict__.setdefault("_lorax_probe", {})
_networks = sys.modules.get("networks")


def marking(load):
    """The host's loader; what it returns says which patches are on it, for hosts differ in where they keep that."""

    @functools.wraps(load)
    def marked(unet, clip, tensors, w_unet, w_te, filename="default", *rest, **named):
        made = load(unet, clip, tensors, w_unet, w_te, filename, *rest, **named)
        for before, after in zip((unet, clip), made, strict=True):
            if after is not before:
                after.probe_idents = [*getattr(before, "probe_idents", []), str(filename)]
        return made

    return marked


if not _seen:
    if _networks is not None:
        _networks.load_lora_for_models = marking(_networks.load_lora_for_models)
    option = shared.opts.data_labels["sd_model_checkpoint"]
    _seen.update(load=getattr(_networks, "load_lora_for_models", None), choice=option.onchange, reloads=0)
else:
    _seen["reloads"] += 1


def idents(patcher):
    return getattr(patcher, "probe_idents", [])


def trace():
    model = sd_models.model_data.get_sd_model()
    objects = {name: getattr(model, name, None) for name in ("forge_objects_after_applying_lora", "forge_objects")}
    patched = {name: [] if o is None else idents(o.unet) + idents(o.clip) for name, o in objects.items()}
    return {
        "reloads": _seen["reloads"],
        "load": _networks.load_lora_for_models is _seen["load"],
        "choice": shared.opts.data_labels["sd_model_checkpoint"].onchange is _seen["choice"],
        "registered": sorted(extra_networks.extra_network_registry),
        "patched": patched,
        "model": type(model).__name__,
    }


def paste(infotext: str):
    from modules import infotext_utils

    params = infotext_utils.parse_generation_parameters(infotext)
    script_callbacks.infotext_pasted_callback(infotext, params)
    return {"prompt": params.get("Prompt"), "settings": infotext_utils.get_override_settings(params)}


def reload_ui():
    shared.state.request_restart()


_inner = {}


class Inner(scripts.Script):
    """Once, after the next picture: another one, with the scripts that it lets through."""

    def title(self):
        return "probe"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def postprocess_image(self, p, pp, *args):
        wanted = _inner.pop("wanted", None)
        if wanted is None:
            return
        inner = processing.StableDiffusionProcessingTxt2Img(
            prompt=wanted["prompt"], width=64, height=64, steps=4, seed=1, cfg_scale=5, sampler_name="Euler", do_not_save_samples=True
        )
        inner.scripts = copy.copy(p.scripts)
        inner.scripts.alwayson_scripts = [s for s in p.scripts.alwayson_scripts if Path(s.filename).stem in wanted["scripts"]]
        inner.scripts.callback_map = {}
        inner.script_args = p.script_args
        made = processing.process_images(inner)
        _inner["made"] = {"pixels": hashlib.sha256(made.images[0].tobytes()).hexdigest()[:16], "comments": list(inner.comments)}


def constant(on: bool):
    """As LoRA-X would be if its patches did not bear what they hold in their names."""
    for name in ("placing", "native"):
        module = sys.modules[f"lorax.hosts.forge.{name}"]
        identity = _seen.setdefault("identity", module.identity)
        module.identity = (lambda carried: "lorax:constant") if on else identity


def small_distillation():
    """Distillations take a minute: of few samples, small ones, drawn in few steps."""
    from lorax.train import distill

    distill.DistillSettings = functools.partial(distill.DistillSettings, samples=4, sampling_steps=2, resolution=64)


def arm(wanted: dict):
    _inner["wanted"] = wanted


def routes(_demo, app):
    if main_entry is not None:
        main_entry.refresh_models()  # without a page nobody looks for files of text encoders
    app.add_api_route("/probe/inner", arm, methods=["POST"])
    app.add_api_route("/probe/inner", lambda: _inner.pop("made", None), methods=["GET"])
    app.add_api_route("/probe/constant", constant, methods=["POST"])
    app.add_api_route("/probe/small-distillation", small_distillation, methods=["POST"])
    app.add_api_route("/probe/trace", trace, methods=["GET"])
    app.add_api_route("/probe/reload", reload_ui, methods=["POST"])
    app.add_api_route("/probe/paste", paste, methods=["GET"])


script_callbacks.on_app_started(routes)
