"""The WebUI as a host: take a place in it, and leave it as it was."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lorax.hosts.a1111 import models
from lorax.hosts.a1111.follower import Follower
from lorax.hosts.a1111.hook import ModuleTypeLorax
from lorax.hosts.a1111.placing import restore_weights
from lorax.hosts.a1111.tag import LoraxTag
from lorax.hosts.base import Host, KnownBase, RetargetOptions, Service, starting, webui
from lorax.hosts.base.api import Routes
from lorax.hosts.base.starting import ComponentOf, MakeService
from lorax.hosts.base.wrapping import Wrapped, wrap


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


def start(make_service: MakeService, component_of: ComponentOf, add_parts: Callable[[Host], None]) -> A1111:
    """`lorax.hosts.base.starting.start` for this host."""
    return starting.start(A1111, make_service, component_of, add_parts)
