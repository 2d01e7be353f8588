"""The network-type hook: LoRA-X files in the ordinary folder are recognised by ``<lora:…>``, and biases beside factors."""

from __future__ import annotations

import copy
from typing import Any

from lorax.hosts.a1111.placing import OnDisk

LEAF = "lorax_sigma"
BIAS = "diff_b"


def is_native(on_disk: Any) -> bool:
    """The file says that it is a LoRA-X file."""
    return "lorax.format_version" in (getattr(on_disk, "metadata", None) or {})


class ModuleTypeLorax:
    """Stands first in ``networks.module_types``. Claims every module of a LoRA-X file, for a self-contained one has ordinary leaves,
    and of our own files the factors with a bias beside them, which the built-in would leave out."""

    def create_module(self, net: Any, weights: Any) -> Any | None:
        if LEAF in weights.w or is_native(net.network_on_disk):
            return Placeholder(net)
        if BIAS in weights.w and isinstance(net.network_on_disk, OnDisk):
            import networks  # pyright: ignore[reportMissingImports]

            others = (kind for kind in networks.module_types if kind is not self)
            factors = next((made for kind in others if (made := kind.create_module(net, weights)) is not None), None)
            return None if factors is None else Biased(factors, weights.w[BIAS])
        return None


class Biased:
    """The built-in's own module for factors, and what is added to the bias."""

    def __init__(self, factors: Any, bias: Any) -> None:
        self._factors = factors
        self._bias = bias

    def __copy__(self) -> Biased:
        return Biased(copy.copy(self._factors), self._bias)

    @property
    def network(self) -> Any:
        return self._factors.network

    @network.setter
    def network(self, network: Any) -> None:
        self._factors.network = network

    def calc_updown(self, target: Any) -> tuple[Any, Any]:
        """What is added to the weight, and to the bias."""
        updown, _ = self._factors.calc_updown(target)
        return updown, self._bias.to(target.device) * self._factors.multiplier()

    def forward(self, x: Any, y: Any) -> Any:
        """With functional networks: what the layer gives, `y`, with the network's part; channels are its second side in images."""
        added = self._bias.to(y.device, y.dtype) * self._factors.multiplier()
        return self._factors.forward(x, y) + (added[:, None, None] if y.ndim == 4 else added)


class Placeholder:
    """A module that waits for the network made for the active checkpoint; used as it is, it is an error that the host counts."""

    def __init__(self, network: Any) -> None:
        self.network = network

    def calc_updown(self, target: Any) -> Any:
        raise RuntimeError("a LoRA-X file was not carried to this checkpoint")

    def forward(self, x: Any, y: Any) -> Any:
        return y
