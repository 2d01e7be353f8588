"""Which host this is, by what its built-in can do; never by name or version."""

from __future__ import annotations

import sys
from collections.abc import Callable

from lorax.hosts.base import Host
from lorax.hosts.base.starting import ComponentOf, MakeService


def start(make_service: MakeService, component_of: ComponentOf, add_parts: Callable[[Host], None]) -> type | None:
    """Take a place in the host. Returns the script class that the host expects in the script's namespace, if it needs one.

    component_of: the widget of a setting. add_parts: adds what the page shows.

    Where the built-in is disabled nothing tells the hosts apart; either way the user is told.
    """
    if patches_models():
        from lorax.hosts import forge

        return forge.script_of(forge.start(make_service, component_of, add_parts).follower)
    from lorax.hosts import a1111

    a1111.start(make_service, component_of, add_parts)
    return None


def patches_models() -> bool:
    """The built-in gives adapters to patchers of the models, and not to their modules; it is loaded before us (metadata.ini)."""
    return callable(getattr(sys.modules.get("networks"), "load_lora_for_models", None))
