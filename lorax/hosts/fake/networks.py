"""The built-in Lora's lists and rules: what is loaded, and when it is applied."""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorax.errors import FileError
from lorax.hosts.fake.model import Attention, Layer, Model
from lorax.safefile import open_tensors

_PARTS = ("q_proj", "k_proj", "v_proj", "out_proj")


@dataclass
class NetworkOnDisk:
    """A file of the Lora folder."""

    name: str
    filename: str
    metadata: dict[str, str]
    mentioned: int = 0

    @property
    def shorthash(self) -> str:
        return self.metadata.get("sshs_model_hash", "")[:12]

    def read_hash(self) -> None:
        self.mentioned += 1


@dataclass
class Weights:
    """The tensors of one module of a file."""

    sd_key: str
    w: dict[str, Tensor] = field(default_factory=dict[str, Tensor])


class Network:
    """A loaded file."""

    def __init__(self, name: str, on_disk: Any) -> None:
        self.name = name
        self.network_on_disk = on_disk
        self.te_multiplier = self.unet_multiplier = 1.0
        self.dyn_dim: int | None = None
        self.modules: dict[str, Any] = {}
        self.mentioned_name: str | None = None


class NetworkModule:
    """A part of a network for one layer; asks its network for the multiplier."""

    def __init__(self, net: Network, weights: Weights) -> None:
        self.network = net
        self.sd_key = weights.sd_key
        self.w = {leaf: tensor.float() for leaf, tensor in weights.w.items()}

    def multiplier(self) -> float:
        return self.network.unet_multiplier if self.sd_key.startswith("unet") else self.network.te_multiplier

    def calc_updown(self, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """What is added to the weight, and to the bias."""
        raise NotImplementedError


class LoraModule(NetworkModule):
    """Factors; a bias beside them is not looked at."""

    def calc_updown(self, target: Tensor) -> tuple[Tensor, None]:
        up, down = self.w["lora_up.weight"], self.w["lora_down.weight"]
        delta = (up.flatten(1) @ down.flatten(1)).reshape(target.shape)
        return delta * (float(self.w["alpha"]) / down.shape[0]) * self.multiplier(), None


class DiffModule(NetworkModule):
    """A norm's two parts, or a whole weight and perhaps a bias."""

    def calc_updown(self, target: Tensor) -> tuple[Tensor, Tensor | None]:
        weight, bias = (self.w.get(a, self.w.get(b)) for a, b in (("diff", "w_norm"), ("diff_b", "b_norm")))
        assert weight is not None
        return weight.reshape(target.shape) * self.multiplier(), None if bias is None else bias * self.multiplier()


@dataclass(frozen=True)
class ModuleType:
    """Makes a module where all of some leaves are there."""

    leaves: tuple[str, ...]
    made: type[NetworkModule]

    def create_module(self, net: Network, weights: Weights) -> NetworkModule | None:
        return self.made(net, weights) if all(leaf in weights.w for leaf in self.leaves) else None


MODULE_TYPES = (
    ModuleType(("lora_up.weight", "lora_down.weight"), LoraModule),
    ModuleType(("diff",), DiffModule),
    ModuleType(("w_norm", "b_norm"), DiffModule),
)


class LoraTag:
    """``<lora:…>``: loads the list of names, empty where the prompt has none."""

    name = "lora"

    def __init__(self, networks: Networks) -> None:
        self._networks = networks
        self.errors: dict[str, int] = {}

    def activate(self, p: Any, params_list: Sequence[Any]) -> None:
        names: list[str] = []
        te: list[float] = []
        unet: list[float] = []
        for params in params_list:
            names.append(params.positional[0])
            first = float(params.named.get("te", params.positional[1] if len(params.positional) > 1 else 1.0))
            te.append(first)
            unet.append(float(params.named.get("unet", params.positional[2] if len(params.positional) > 2 else first)))
        self._networks.load_networks(names, te, unet, [None] * len(names))
        hashes = {n.mentioned_name: n.network_on_disk.shorthash for n in self._networks.loaded_networks if n.mentioned_name}
        hashes = {name: h for name, h in hashes.items() if h}
        if hashes:
            p.extra_generation_params["Lora hashes"] = ", ".join(f"{name}: {h}" for name, h in hashes.items())

    def deactivate(self, p: Any) -> None:
        self.errors.clear()


class Networks(types.ModuleType):
    """The module ``networks``."""

    def __init__(self, folder: Path, model: Callable[[], Model], functional: Callable[[], bool], comment: Callable[[str], None]) -> None:
        super().__init__("networks")
        self.module_types: list[Any] = list(MODULE_TYPES)
        self.loaded_networks: list[Any] = []
        self.networks_in_memory: dict[str, Any] = {}
        self.available_network_hash_lookup: dict[str, Any] = {}
        self.extra_network_lora = LoraTag(self)
        self._folder, self._model, self._functional, self._comment = folder, model, functional, comment
        self.load_networks: Callable[..., None] = self._load_networks

    def _on_disk(self, name: str) -> NetworkOnDisk | None:
        path = self._folder / f"{name}.safetensors"
        if not path.is_file():
            return None
        try:
            with _closing(path) as file:
                return NetworkOnDisk(name, str(path), dict(file.metadata))
        except FileError:
            return NetworkOnDisk(name, str(path), {})

    def _load_networks(self, names: Sequence[str], te: Any = None, unet: Any = None, dyn: Any = None) -> None:
        already = {n.name: n for n in self.loaded_networks if n.name in names}
        self.loaded_networks.clear()
        for i, name in enumerate(names):
            on_disk = self._on_disk(name)
            if on_disk is None:
                self._comment(f"Lora not found: {name}")
                continue
            net = already.get(name) or self.load_network(name, on_disk)
            net.mentioned_name = name
            net.te_multiplier, net.unet_multiplier, net.dyn_dim = te[i], unet[i], dyn[i]
            self.loaded_networks.append(net)

    def load_network(self, name: str, on_disk: Any) -> Network:
        """Reads the file and makes a module for each layer of the active model that it names."""
        net, model = Network(name, on_disk), self._model()
        found: dict[str, Weights] = {}
        with _closing(Path(on_disk.filename)) as file:
            for key in file.tensors:
                module, _, leaf = key.partition(".")
                layer = model.layer_name(module)
                if layer is not None:
                    found.setdefault(layer, Weights(layer)).w[leaf] = file.read(key).clone()
        for layer, weights in found.items():
            made = next((m for t in self.module_types if (m := t.create_module(net, weights)) is not None), None)
            if made is None:
                raise AssertionError(f"could not find a module type that would accept {', '.join(weights.w)}")
            net.modules[layer] = made
        return net

    def network_restore_weights_from_backup(self, layer: Layer) -> None:
        for tensor, backup in zip(layer.tensors(), layer.network_weights_backup or layer.tensors(), strict=True):
            tensor.copy_(backup)

    def apply(self, layer: Layer) -> None:
        """What stands before every forward pass: nothing, where names and multipliers are those that are applied already."""
        wanted = tuple((n.name, n.te_multiplier, n.unet_multiplier, n.dyn_dim) for n in self.loaded_networks)
        if self._functional():
            self.network_restore_weights_from_backup(layer)
            layer.network_current_names, layer.network_weights_backup = (), None
        if layer.network_current_names == wanted:
            return
        if layer.network_weights_backup is None:
            layer.network_weights_backup = [tensor.clone() for tensor in layer.tensors()]
        self.network_restore_weights_from_backup(layer)
        with torch.no_grad():
            for net in self.loaded_networks:
                self._apply_one(net, layer)
        layer.network_current_names = wanted

    def _apply_one(self, net: Network, layer: Layer) -> None:
        name = layer.network_layer_name
        if not isinstance(layer, Attention):
            if name in net.modules:
                updown, ex_bias = net.modules[name].calc_updown(layer.weight)
                layer.weight.copy_(layer.weight + updown)
                if ex_bias is not None and layer.bias is not None:
                    layer.bias.copy_(layer.bias + ex_bias)
            return
        parts = [net.modules[key] for part in _PARTS if (key := f"{name}_{part}") in net.modules]
        if len(parts) == len(_PARTS):
            q, k, v = layer.weight.chunk(3, 0)
            updown = torch.cat([m.calc_updown(w)[0] for m, w in zip(parts[:3], (q, k, v), strict=True)])
            layer.weight.copy_(layer.weight + updown)
            layer.out.copy_(layer.out + parts[3].calc_updown(layer.out)[0])


def _closing(path: Path) -> Any:
    import contextlib

    return contextlib.closing(open_tensors(path))
