"""What every WebUI of this kind offers in the same way; its modules are imported where they are used."""

# pyright: reportMissingImports=false

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lorax.errors import Cancelled
from lorax.hosts.base.settings import SETTINGS, Setting, retarget_options
from lorax.hosts.base.values import KnownBase, RetargetOptions

NO_BUILT_IN = "the built-in extension for LoRA is disabled, and LoRA-X works through it: enable it in Extensions, then reload the UI"
CACHES = ("cached_c", "cached_uc", "cached_hr_c", "cached_hr_uc")


def networks() -> Any | None:
    """The built-in extension's module ``networks``, None where the extension is disabled.

    The module stays loaded after the extension was disabled and the UI reloaded, hence the look into the registry.
    """
    from modules import extra_networks

    module = sys.modules.get("networks")
    registered = extra_networks.extra_network_registry.get("lora")
    if module is None or registered is None or getattr(module, "extra_network_lora", None) is not registered:
        return None
    return module


def known(info: Any) -> KnownBase:
    """A checkpoint of the WebUI's list."""
    names = (info.title, info.name, info.model_name, info.name_for_extra)
    return KnownBase(Path(info.filename), tuple(dict.fromkeys(names)), info.sha256)


def bases() -> Sequence[KnownBase]:
    """Every checkpoint that the WebUI lists."""
    from modules import sd_models

    return [known(info) for info in list(sd_models.checkpoints_list.values())]


def base_named(name: str) -> KnownBase | None:
    """The checkpoint that the WebUI finds by a title, a name or a hash."""
    from modules import sd_models

    info = sd_models.get_closet_checkpoint_match(name)
    return None if info is None else known(info)


def option(key: str) -> Any:
    """A setting's value, None where it is not set."""
    from modules import shared

    return shared.opts.data.get(key)


def options() -> RetargetOptions:
    return retarget_options(option)


def add_settings(component_of: Callable[[Setting], tuple[Any, dict[str, Any] | None]]) -> None:
    """The section of the settings page; the WebUI reads it before the page is made, with or without a page."""
    from modules import shared

    def shown(setting: Setting) -> Any:
        option = shared.OptionInfo(setting.default, setting.label, *component_of(setting), infotext=setting.infotext)
        return option.info(setting.info) if setting.info else option

    shared.options_templates.update(shared.options_section(("lorax", "LoRA-X"), {s.key: shown(s) for s in SETTINGS}))
    for setting in SETTINGS:  # a request's override is undone only for options that have a value
        shared.opts.data.setdefault(setting.key, setting.default)


def adapter_folders() -> tuple[Path, ...]:
    """``models/Lorax`` (or ``--lorax-dir``), and the folders of the built-in."""
    from modules import paths, shared

    own = getattr(shared.cmd_opts, "lorax_dir", None) or str(Path(paths.models_path) / "Lorax")
    others = (getattr(shared.cmd_opts, name, None) for name in ("lora_dir", "lyco_dir_backcompat"))
    more = getattr(shared.cmd_opts, "lora_dirs", None) or ()
    return tuple(dict.fromkeys(Path(folder) for folder in (own, *others, *more) if folder))


def progress(text: str, done: int, total: int) -> None:
    """The WebUI's own progress text, and its Interrupt."""
    from modules import shared

    shared.state.textinfo = f"LoRA-X: {text}" + (f" {done}/{total}" if total > 1 else "")
    if shared.state.interrupted:
        raise Cancelled("LoRA-X stopped: the picture was interrupted")


def progress_over() -> None:
    from modules import shared

    if str(shared.state.textinfo or "").startswith("LoRA-X:"):
        shared.state.textinfo = None


def report(line: str) -> None:
    """A line in the console."""
    print(f"LoRA-X: {line}", file=sys.stderr)


def report_exception(line: str) -> None:
    """A line and the traceback of what was not expected."""
    from modules import errors

    errors.report(f"LoRA-X: {line}", exc_info=True)


def forget_conds(p: Any = None) -> None:
    """Empty the caches of text encodings: they are keyed on the prompt's tags, not on what stands behind them.

    p: a picture in the making, whose caches may no longer be those of its class.
    """
    from modules import processing

    for owner in (processing.StableDiffusionProcessing, processing.StableDiffusionProcessingTxt2Img, p):
        for name in CACHES:
            cache = getattr(owner, name, None)
            if isinstance(cache, list):
                cache[:] = [None] * len(cache)
