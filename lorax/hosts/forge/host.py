"""The WebUI as a host: take a place in it, and leave it as it was."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lorax.cache import default_folder
from lorax.hosts.base import Host, KnownBase, RetargetOptions, Service, Setting, hashes_from_infotext, restore_names, webui
from lorax.hosts.base.api import Routes
from lorax.hosts.base.infotext import HASHES
from lorax.hosts.base.wrapping import Wrapped, wrap
from lorax.hosts.forge import encoders, models
from lorax.hosts.forge.follower import Follower

MakeService = Callable[[tuple[Path, ...], Path, int, Callable[[], Sequence[KnownBase]]], Service]
"""(adapter folders, cache folder, its limit in bytes, the known bases) → the service"""

_started: Forge | None = None


class LoraxTag:
    """``<lorax:…>``, an extra network of the WebUI by the methods that it calls."""

    name = "lorax"

    def __init__(self, follower: Follower) -> None:
        self._follower = follower

    def activate(self, p: Any, params_list: Sequence[Any]) -> None:
        """For every picture, hires pass and refiner, with no parameters where the prompt has no tag."""
        self._follower.ask(p, params_list)

    def deactivate(self, p: Any) -> None:
        """Nothing: the script's `postprocess` comes for every picture."""


class Forge:
    """A WebUI with ``networks.load_lora_for_models`` (`lorax.hosts.base.Host`)."""

    title = "Forge"

    def __init__(self, service: Service) -> None:
        self.service = service
        self.follower = Follower(service)
        self._tag = LoraxTag(self.follower)
        self._wrapped: list[Wrapped] = []
        self._undo: list[Callable[[], None]] = []

    def install(self) -> None:
        """Register the tag (the registry is emptied whenever the UI reloads); twice is once."""
        from modules import extra_networks

        extra_networks.register_extra_network(self._tag)
        if not self._undo:
            self._undo = [models.on_choice(self.follower.warm)]
        self.take_place()

    def take_place(self) -> bool:
        """Around the built-in's loader, once the built-in is registered: callbacks run in an order that we do not choose."""
        networks = webui.networks()
        if networks is None:
            return False
        if not self._wrapped:
            self._wrapped = [wrap(networks, "load_lora_for_models", self.follower.native.around_load)]
        return True

    def serve(self, demo: Any, app: Any) -> None:
        """The WebUI's server has started: every extension is in its place by now."""
        if not self.take_place():
            webui.report(webui.NO_BUILT_IN)
        Routes(self.service, self, lambda: self.follower.applied).register(demo, app)

    def uninstall(self) -> None:
        """Undo `install`: the same objects stand where they stood."""
        from modules import extra_networks

        self.follower.stop()
        for wrapped in self._wrapped:
            wrapped.undo()
        for undo in self._undo:
            undo()
        self._wrapped, self._undo = [], []
        if extra_networks.extra_network_registry.get("lorax") is self._tag:
            del extra_networks.extra_network_registry["lorax"]
        webui.forget_conds()
        self.service.close()

    def active_base(self) -> KnownBase | None:
        return models.base_of(models.active_model())

    def chosen_base(self) -> KnownBase | None:
        return models.chosen_base() or self.active_base()

    def bases(self) -> Sequence[KnownBase]:
        return webui.bases()

    def options(self) -> RetargetOptions:
        return webui.options()

    def paste(self, infotext: str, params: dict[str, Any]) -> None:
        """Call the adapters of a pasted prompt as they are called here."""
        hashes = hashes_from_infotext(str(params.get(HASHES, "")))
        for field in ("Prompt", "Hires prompt"):
            if hashes and params.get(field):
                params[field] = restore_names(str(params[field]), hashes, self.service.name_of)


def start(
    make_service: MakeService,
    component_of: Callable[[Setting], tuple[Any, dict[str, Any] | None]],
    add_parts: Callable[[Host], None],
) -> Forge:
    """Called by the script that the WebUI loads, each time that it loads it. component_of: the widget of a setting."""
    global _started
    from modules import script_callbacks

    webui.add_settings(component_of)
    if _started is not None:
        _started.uninstall()
    folders = webui.adapter_folders()
    folders[0].mkdir(parents=True, exist_ok=True)
    cache = Path(webui.option("lorax_cache_folder") or default_folder())
    limit = int(float(webui.option("lorax_cache_gb") or 8) * (1 << 30))
    host = _started = Forge(make_service(folders, cache, limit, webui.bases))

    def unload() -> None:
        global _started
        host.uninstall()
        if _started is host:
            _started = None

    script_callbacks.on_before_ui(host.install)
    add_parts(host)
    script_callbacks.on_script_unloaded(unload)
    script_callbacks.on_model_loaded(encoders.remember)
    script_callbacks.on_infotext_pasted(host.paste)
    script_callbacks.on_app_started(host.serve)
    return host
