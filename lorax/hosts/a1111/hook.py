"""The network-type hook: LoRA-X files in the ordinary folder are recognised by ``<lora:…>``."""

from __future__ import annotations

from typing import Any

LEAF = "lorax_sigma"


def is_native(on_disk: Any) -> bool:
    """The file says that it is a LoRA-X file."""
    return "lorax.format_version" in (getattr(on_disk, "metadata", None) or {})


class ModuleTypeLorax:
    """Claims every module of a LoRA-X file; stands first in ``networks.module_types``, for a self-contained file has ordinary leaves."""

    def create_module(self, net: Any, weights: Any) -> Placeholder | None:
        if LEAF in weights.w or is_native(net.network_on_disk):
            return Placeholder(net)
        return None


class Placeholder:
    """A module that waits for the network made for the active checkpoint; used as it is, it is an error that the host counts."""

    def __init__(self, network: Any) -> None:
        self.network = network

    def calc_updown(self, target: Any) -> Any:
        raise RuntimeError("a LoRA-X file was not carried to this checkpoint")

    def forward(self, x: Any, y: Any) -> Any:
        return y
