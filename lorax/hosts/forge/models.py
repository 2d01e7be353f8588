"""What this kind of WebUI knows of its models; its modules are imported where they are used."""

# pyright: reportMissingImports=false

from __future__ import annotations

import inspect
import sys
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lorax.hosts.base import KnownBase, webui
from lorax.hosts.forge import encoders


def active_model() -> Any | None:
    """The model that the picture is made with, None where it is a stand-in or did not load.

    A first picture finds a stand-in without patchers, and a load that failed leaves nothing (sd_models.FakeInitialModel).
    """
    from modules import sd_models

    model = sd_models.model_data.get_sd_model()
    return model if getattr(model, "forge_objects_after_applying_lora", None) is not None else None


def base_of(model: Any | None, p: Any = None) -> KnownBase | None:
    """The checkpoint file behind a model, with the files of its text encoders where they are apart.

    p: the picture in the making. Its refiner may have put another file's weights into the same model, which does not say so.
    """
    info = getattr(model, "sd_checkpoint_info", None)
    if info is None:
        return None
    refiner = getattr(p, "refiner_checkpoint_info", None)
    if not _is_marked():
        _in_place.clear()
    elif refiner is not None and not _marked_before[0]:
        _in_place[model], _marked_before[0] = refiner, True
    return _with_encoders(webui.known(_in_place.get(model, info)), model)


def picture_begins() -> None:
    """A mark that is here already tells nothing of this picture."""
    _marked_before[0] = _is_marked()


_in_place: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
"""By the model, the checkpoint whose weights were put into it."""
_marked_before = [False]


def _is_marked() -> bool:
    """Neo's setting 'Reload "state_dict" Only': the host keeps the name of the file that it will put back.

    Only its refiner's script does so, and that runs only where the refiner is shown in the page: without it (the API needs none) the
    weights stay in the model, the mark stays for good, also on other models, and nothing is swapped any more.
    """
    return getattr(sys.modules.get("modules.sd_samplers_common"), "ORIGINAL_CHECKPOINT", None) is not None


def chosen_base() -> KnownBase | None:
    """The checkpoint that the next picture will be made with, loaded or not."""
    from modules import shared

    name = shared.opts.data.get("sd_model_checkpoint")
    base = webui.base_named(str(name)) if name else None
    return None if base is None else _with_encoders(base, None)


def _with_encoders(base: KnownBase, model: Any | None) -> KnownBase:
    return replace(base, beside=encoders.beside(model, base.path))


def how_to_load(networks: Any, model: Any) -> dict[str, Any]:
    """What the host's loader takes beside the usual: patches at run time instead of merged ones, as the built-in decides it."""
    if "online_mode" not in inspect.signature(networks.load_lora_for_models).parameters:
        return {}
    arguments = sys.modules.get("backend.args")
    wanted = bool(getattr(arguments, "dynamic_args", {}).get("online_lora", False))
    return {"online_mode": wanted and not (_asks_for_storage(networks) and _is_plain(model))}


def _asks_for_storage(networks: Any) -> bool:
    """Forge's built-in merges into weights that are not quantised whatever is wanted; Neo's does as it is told."""
    code = getattr(inspect.unwrap(networks.load_networks), "__code__", None)
    return "storage_dtype" in getattr(code, "co_names", ())


def _is_plain(model: Any) -> bool:
    import torch

    stored = getattr(model.forge_objects.unet.model, "storage_dtype", torch.float32)
    return stored in (torch.float32, torch.float16, torch.bfloat16)


def on_choice(act: Callable[[], None]) -> Callable[[], None]:
    """`act` whenever another checkpoint is chosen, after what the host does then. Returns what undoes it."""
    from modules import shared

    option = shared.opts.data_labels["sd_model_checkpoint"]
    before = option.onchange
    live = [True]

    def changed() -> None:
        if before is not None:
            before()
        if live[0]:
            act()

    shared.opts.onchange("sd_model_checkpoint", changed, call=False)

    def undo() -> None:
        live[0] = False
        if option.onchange is changed:
            option.onchange = before

    return undo
