"""What every host shares: the values that pass between a host and the service, and how prompts and infotexts are read."""

from __future__ import annotations

from lorax.hosts.base.infotext import hashes_from_infotext, hashes_to_infotext, restore_names
from lorax.hosts.base.prompt import parse_wish
from lorax.hosts.base.settings import SETTINGS, Setting, read_sources, retarget_options
from lorax.hosts.base.values import Carried, Forecast, Host, KnownBase, RetargetOptions, Service, Wish

__all__ = [
    "SETTINGS",
    "Carried",
    "Forecast",
    "Host",
    "KnownBase",
    "RetargetOptions",
    "Service",
    "Setting",
    "Wish",
    "hashes_from_infotext",
    "hashes_to_infotext",
    "parse_wish",
    "read_sources",
    "restore_names",
    "retarget_options",
]
