"""Networks of the built-in made from carried files, and their place in its list."""

from __future__ import annotations

import copy
import weakref
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorax.hosts.base import Carried


@dataclass
class OnDisk:
    """What `networks.load_network` and its callers ask of a ``NetworkOnDisk``; the real one would enter the host's lists."""

    name: str
    filename: str
    alias: str = ""
    hash: str | None = None
    shorthash: str = ""
    metadata: dict[str, str] = field(default_factory=dict[str, str])

    def read_hash(self) -> None:
        """Not wanted: the file is ours."""


class Maker:
    """Makes networks with the host's own loader, and keeps the last ones of each loaded model."""

    def __init__(self) -> None:
        self._made: weakref.WeakKeyDictionary[Any, OrderedDict[str, Any]] = weakref.WeakKeyDictionary()

    def network(self, networks: Any, carried: Carried, base: str, model: Any, keep: int) -> Any:
        """A network of its own, with multipliers to be set.

        Its name holds base and content, because the host applies a network again only where names or multipliers differ.
        """
        made = self._made.setdefault(model, OrderedDict())
        pristine = made.get(carried.digest)
        if pristine is None:
            name = f"lorax:{carried.name}@{base}#{carried.digest[:16]}"
            pristine = networks.load_network(name, OnDisk(carried.name, str(carried.path)))
            made[carried.digest] = pristine
        made.move_to_end(carried.digest)
        while len(made) > max(1, keep):
            made.popitem(last=False)
        return own_copy(pristine)

    def forget(self) -> None:
        self._made.clear()


def own_copy(network: Any) -> Any:
    """The same tensors under multipliers of their own: modules ask their network for them."""
    placed = copy.copy(network)
    placed.modules = {}
    for key, module in network.modules.items():
        mine = copy.copy(module)
        mine.network = placed
        placed.modules[key] = mine
    placed.mentioned_name = None
    return placed


def remove(networks: Any, ours: list[Any]) -> None:
    """Take networks out of the host's list, by identity."""
    ids = {id(n) for n in ours}
    networks.loaded_networks[:] = [n for n in networks.loaded_networks if id(n) not in ids]


def restore_weights(networks: Any, models: list[Any], names: set[str]) -> None:
    """Give modules that hold any of these networks their own weights back."""
    import torch

    for model in models:
        for module in model.modules():
            current = getattr(module, "network_current_names", ())
            if any(entry[0] in names for entry in current):
                with torch.no_grad():
                    networks.network_restore_weights_from_backup(module)
                module.network_current_names = ()


@dataclass
class StandIn:
    """A LoRA-X file that a ``<lora:…>`` tag named, and the network that stands for it on the active model."""

    path: Path
    on_disk: Any
    mentioned_name: str | None
    te: float
    unet: float
    dyn_dim: int | None
    placed: Any
    """What is in the host's list for it: first the host's own object, then ours."""

    @classmethod
    def of(cls, network: Any) -> StandIn:
        on_disk = network.network_on_disk
        multipliers = network.te_multiplier, network.unet_multiplier, network.dyn_dim
        return cls(Path(on_disk.filename), on_disk, network.mentioned_name, *multipliers, network)

    def dress(self, network: Any) -> Any:
        """`network` with what the tag and the host's file entry say, so that "Lora hashes" names the user's file."""
        network.te_multiplier, network.unet_multiplier, network.dyn_dim = self.te, self.unet, self.dyn_dim
        network.network_on_disk, network.mentioned_name = self.on_disk, self.mentioned_name
        return network
