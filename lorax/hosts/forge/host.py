"""The WebUI as a host: take a place in it, and leave it as it was."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lorax.hosts.base import Host, KnownBase, RetargetOptions, Service, starting, webui
from lorax.hosts.base.api import Routes
from lorax.hosts.base.starting import ComponentOf, MakeService
from lorax.hosts.base.wrapping import Wrapped, wrap
from lorax.hosts.forge import encoders, models
from lorax.hosts.forge.follower import Follower


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
        webui.forget_conds()  # while the extension was disabled, the same tags stood for nothing

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


def start(make_service: MakeService, component_of: ComponentOf, add_parts: Callable[[Host], None]) -> Forge:
    """`lorax.hosts.base.starting.start` for this host."""
    from modules import script_callbacks

    host = starting.start(Forge, make_service, component_of, add_parts)
    script_callbacks.on_model_loaded(encoders.remember)
    return host
