"""How the extension takes its place in a WebUI, the same on every host; the WebUI's modules are imported where they are used."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from lorax.cache import default_folder
from lorax.hosts.base import webui
from lorax.hosts.base.infotext import HASHES, hashes_from_infotext, restore_names
from lorax.hosts.base.settings import Setting
from lorax.hosts.base.values import Host, KnownBase, Service

MakeService = Callable[[tuple[Path, ...], Path, int, Callable[[], Sequence[KnownBase]]], Service]
"""(adapter folders, cache folder, its limit in bytes, the known bases) → the service"""
ComponentOf = Callable[[Setting], tuple[Any, dict[str, Any] | None]]
"""The widget of a setting."""


class Place(Host, Protocol):
    """A host that serves."""

    def serve(self, demo: Any, app: Any) -> None:
        """The WebUI's server has started."""
        ...


PlaceT = TypeVar("PlaceT", bound=Place)
_started: Place | None = None


def start(
    make: Callable[[Service], PlaceT], make_service: MakeService, component_of: ComponentOf, add_parts: Callable[[Host], None]
) -> PlaceT:
    """Called by the script that the WebUI loads, each time that it loads it."""
    global _started
    from modules import script_callbacks

    webui.add_settings(component_of)
    if _started is not None:
        _started.uninstall()
    folders = webui.adapter_folders()
    folders[0].mkdir(parents=True, exist_ok=True)
    cache = Path(webui.option("lorax_cache_folder") or default_folder())
    limit = int(float(webui.option("lorax_cache_gb") or 8) * (1 << 30))
    host = make(make_service(folders, cache, limit, webui.bases))
    _started = host

    def unload() -> None:
        global _started
        host.uninstall()
        if _started is host:
            _started = None

    script_callbacks.on_before_ui(host.install)
    add_parts(host)
    script_callbacks.on_script_unloaded(unload)
    script_callbacks.on_infotext_pasted(lambda infotext, params: paste(host.service, params))
    script_callbacks.on_app_started(host.serve)
    return host


def paste(service: Service, params: dict[str, Any]) -> None:
    """Call the adapters of a pasted prompt as they are called here."""
    hashes = hashes_from_infotext(str(params.get(HASHES, "")))
    for field in ("Prompt", "Hires prompt"):
        if hashes and params.get(field):
            params[field] = restore_names(str(params[field]), hashes, service.name_of)
