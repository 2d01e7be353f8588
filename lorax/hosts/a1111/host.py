"""The WebUI as a host: take a place in it, and leave it as it was."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lorax.cache import default_folder
from lorax.hosts.a1111 import models
from lorax.hosts.a1111.follower import Follower
from lorax.hosts.a1111.hook import ModuleTypeLorax
from lorax.hosts.a1111.placing import restore_weights
from lorax.hosts.a1111.tag import LoraxTag
from lorax.hosts.base import Host, KnownBase, RetargetOptions, Service, Setting, hashes_from_infotext, restore_names, webui
from lorax.hosts.base.api import Routes
from lorax.hosts.base.infotext import HASHES
from lorax.hosts.base.wrapping import Wrapped, wrap

MakeService = Callable[[tuple[Path, ...], Path, int, Callable[[], Sequence[KnownBase]]], Service]
"""(adapter folders, cache folder, its limit in bytes, the known bases) → the service"""

_started: A1111 | None = None


class A1111:
    """AUTOMATIC1111's WebUI (`lorax.hosts.base.Host`)."""

    title = "AUTOMATIC1111"

    def __init__(self, service: Service) -> None:
        self.service = service
        self.follower = Follower(service)
        self._tag = LoraxTag(self.follower, self.take_place)
        self._hook = ModuleTypeLorax()
        self._wrapped: list[Wrapped] = []

    def install(self) -> None:
        """Register the tag, and take a place in the built-in if it is there already; twice is once.

        The registry is emptied whenever the UI reloads, so this runs before each page.
        """
        from modules import extra_networks

        extra_networks.register_extra_network(self._tag)
        self.take_place()
        webui.forget_conds()  # while the extension was disabled, the same tags stood for nothing

    def take_place(self) -> bool:
        """Hook and wrappers, once the built-in is registered: callbacks run in an order that we do not choose."""
        from modules import sd_models

        networks = webui.networks()
        if networks is None:
            return False
        if self._hook not in networks.module_types:
            networks.module_types.insert(0, self._hook)
        if not self._wrapped:
            self._wrapped = [
                wrap(networks, "load_networks", self.follower.around_load_networks),
                wrap(sd_models, "reload_model_weights", self.follower.around_reload),
            ]
        return True

    def serve(self, demo: Any, app: Any) -> None:
        """The WebUI's server has started: every extension is in its place by now."""
        if not self.take_place():
            webui.report(webui.NO_BUILT_IN)
        Routes(self.service, self, lambda: self.follower.applied).register(demo, app)

    def uninstall(self) -> None:
        """Undo `install`: the same objects stand where they stood, and weights are the checkpoint's."""
        import sys

        from modules import extra_networks, sd_models

        self.follower.stop()
        for wrapped in self._wrapped:
            wrapped.undo()
        self._wrapped = []
        networks = sys.modules.get("networks")
        if networks is not None:
            networks.module_types[:] = [t for t in networks.module_types if t is not self._hook]
            restore_weights(networks, [m for m in sd_models.model_data.loaded_sd_models if m is not None], self.follower.names)
        if extra_networks.extra_network_registry.get("lorax") is self._tag:
            del extra_networks.extra_network_registry["lorax"]
        webui.forget_conds()
        self.service.close()

    def active_base(self) -> KnownBase | None:
        return models.base_of(models.active_model())

    def chosen_base(self) -> KnownBase | None:
        name = webui.option("sd_model_checkpoint")
        return (webui.base_named(str(name)) if name else None) or self.active_base()

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
) -> A1111:
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
    host = _started = A1111(make_service(folders, cache, limit, webui.bases))

    def unload() -> None:
        global _started
        host.uninstall()
        if _started is host:
            _started = None

    script_callbacks.on_before_ui(host.install)
    add_parts(host)
    script_callbacks.on_script_unloaded(unload)
    script_callbacks.on_infotext_pasted(host.paste)
    script_callbacks.on_app_started(host.serve)
    return host
