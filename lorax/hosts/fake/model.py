"""A model that only holds weights: what a picture would have depended on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorax.archs import kohya_names
from lorax.checkpoint import open_checkpoint
from lorax.digest import tensor_digest
from lorax.layers import Component, LayerId

_FUSED = ("q_proj", "k_proj", "v_proj")


@dataclass
class CheckpointInfo:
    """What the WebUI knows of a checkpoint file."""

    filename: str
    sha256: str | None = None
    ids: tuple[str, ...] = field(default=())

    @property
    def name(self) -> str:
        return Path(self.filename).name

    @property
    def name_for_extra(self) -> str:
        return Path(self.filename).stem

    title = name
    model_name = name_for_extra


class Layer(torch.nn.Module):
    """A weight, perhaps a bias, and what the built-in Lora hangs on them."""

    def __init__(self, name: str, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.network_layer_name = name
        self.weight = torch.nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else torch.nn.Parameter(bias, requires_grad=False)
        self.network_current_names: tuple[Any, ...] = ()
        self.network_weights_backup: Any = None

    def tensors(self) -> tuple[Tensor, ...]:
        """What a picture depends on."""
        return (self.weight,) if self.bias is None else (self.weight, self.bias)


class Attention(Layer):
    """OpenCLIP's attention: q, k and v are rows of one weight, `out` is another."""

    def __init__(self, name: str, fused: Tensor, out: Tensor) -> None:
        super().__init__(name, fused)
        self.out = torch.nn.Parameter(out, requires_grad=False)

    def tensors(self) -> tuple[Tensor, ...]:
        return self.weight, self.out


class Model(torch.nn.Module):
    """The layers of a checkpoint, each with its name in the built-in's mapping."""

    def __init__(self, info: CheckpointInfo, config: str) -> None:
        super().__init__()
        self.used_config = config
        self.network_layer_mapping: dict[str, Layer] = {}
        self.loads = 0
        self.load(info)

    def load(self, info: CheckpointInfo) -> None:
        """The weights of another checkpoint into this object, as ``load_state_dict`` does: what was applied is forgotten."""
        self.sd_checkpoint_info = info
        self.sd_model_checkpoint = info.filename
        self.loads += 1
        with open_checkpoint(info.filename) as checkpoint:
            self.arch = checkpoint.arch
            weights = {i: checkpoint.read(layer) for i, layer in checkpoint.layers.items()}
            biases = {str(i): checkpoint.read_bias(layer) for i, layer in checkpoint.layers.items()}
        for name, tensors in _grouped(weights, self._openclip()):
            known = self.network_layer_mapping.get(name)
            made = Attention(name, *tensors) if len(tensors) == 2 else Layer(name, tensors[0], biases.get(name))
            if known is None:
                known = self.network_layer_mapping[name] = made
                self.add_module(name.replace(".", "/"), known)
            else:
                for old, new in zip(known.tensors(), made.tensors(), strict=True):
                    old.copy_(new)
            known.network_current_names, known.network_weights_backup = (), None

    def layer_name(self, module: str) -> str | None:
        """The name of the layer that a kohya-style module name means; q, k, v and out of a fused attention keep theirs behind it."""
        layer = kohya_names(self.arch).get(module)
        if layer is None:
            return None
        unit, attention, role = layer.path.rpartition(".self_attn.")
        if attention and layer.component in self._openclip():
            return f"{layer.component}.{unit}_{role}"
        return str(layer) if str(layer) in self.network_layer_mapping else None

    def state(self, text: bool, apply: Callable[[Layer], None]) -> str:
        """Hash of the text encoders' or the UNet's weights; `apply` is called on each layer, as each forward pass does."""
        digest = hashlib.sha256()
        for name, layer in self.network_layer_mapping.items():
            if name.startswith(Component.UNET.value) != text:
                apply(layer)
                for tensor in layer.tensors():
                    digest.update(tensor_digest(tensor.detach()).encode())
        return digest.hexdigest()

    def _openclip(self) -> set[Component]:
        return {component for component, text in self.arch.text if text.kind == "openclip"}


def _grouped(weights: dict[LayerId, Tensor], openclip: set[Component]) -> Iterator[tuple[str, tuple[Tensor, ...]]]:
    """(name, weights) of each layer, fused attentions as one."""
    for layer, weight in weights.items():
        unit, attention, role = layer.path.rpartition(".self_attn.")
        if not attention or layer.component not in openclip:
            yield str(layer), (weight,)
        elif role == "q_proj":
            parts = [weights[LayerId(layer.component, f"{unit}.self_attn.{r}")] for r in (*_FUSED, "out_proj")]
            yield f"{layer.component}.{unit}", (torch.cat(parts[:3]), parts[3])
