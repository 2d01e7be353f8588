"""Deltas beside the layers of a live network, by forward hooks: weights are never touched, so half precision rounds nothing away."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from lorax.adapter import Offset
from lorax.layers import LayerId
from lorax.linalg import Factors


class LowRankBranch(nn.Module):
    """``y += up (down x)`` beside a linear layer or a convolution. Both factors are parameters, trained where that is asked for."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, factors: Factors, trained: bool = False) -> None:
        super().__init__()
        self._layer = (layer,)  # a tuple, so that it does not become a submodule
        device = layer.weight.device
        self.up = nn.Parameter(factors.up.detach().to(device, torch.float32).clone(), requires_grad=trained)
        self.down = nn.Parameter(factors.down.detach().to(device, torch.float32).clone(), requires_grad=trained)

    def forward(self, x: Tensor) -> Tensor:
        layer, down, up = self._layer[0], self.down.to(x.dtype), self.up.to(x.dtype)
        if isinstance(layer, nn.Linear):
            return functional.linear(functional.linear(x, down), up)
        inner = _convolve(layer, x, down.reshape(-1, *layer.weight.shape[1:]))
        return functional.conv2d(inner, up[:, :, None, None])

    def factors(self) -> Factors:
        """The delta as it is now, on the CPU."""
        return Factors(self.up.detach().float().cpu(), self.down.detach().float().cpu())


class DenseBranch(nn.Module):
    """``y += ΔW x``, for deltas that have no small factors."""

    delta: Tensor

    def __init__(self, layer: nn.Linear | nn.Conv2d, delta: Tensor) -> None:
        super().__init__()
        self._layer = (layer,)
        self.register_buffer("delta", delta.reshape(layer.weight.shape).to(layer.weight), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        layer, delta = self._layer[0], self.delta.to(x.dtype)
        return functional.linear(x, delta) if isinstance(layer, nn.Linear) else _convolve(layer, x, delta)


def _convolve(layer: nn.Conv2d, x: Tensor, weight: Tensor) -> Tensor:
    """With the layer's own stride and padding, without its bias."""
    return functional.conv2d(x, weight, None, layer.stride, layer.padding, layer.dilation)


def hook(layer: nn.Module, branch: nn.Module) -> RemovableHandle:
    """Add the branch's output to the layer's until the handle is removed."""

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + branch(inputs[0])

    return layer.register_forward_hook(add)


def fits(layer: nn.Module | None, shape: tuple[int, int]) -> bool:
    """Whether a delta [out, in·kh·kw] has its place on the live layer."""
    if not isinstance(layer, (nn.Linear, nn.Conv2d)) or (isinstance(layer, nn.Conv2d) and layer.groups != 1):
        return False
    return (layer.weight.shape[0], layer.weight[0].numel()) == shape


@contextmanager
def attached(
    layers: Mapping[LayerId, nn.Module], deltas: Mapping[LayerId, Factors | Tensor], offsets: Mapping[LayerId, Offset] | None = None
) -> Generator[list[LayerId]]:
    """Put an adapter on live layers for as long as the block lasts; yields the ids that found no place."""
    missing: list[LayerId] = []
    with ExitStack() as stack:
        for i, delta in deltas.items():
            layer = layers.get(i)
            if not isinstance(layer, (nn.Linear, nn.Conv2d)) or not fits(layer, _shape(delta)):
                missing.append(i)
                continue
            branch = LowRankBranch(layer, delta) if isinstance(delta, Factors) else DenseBranch(layer, delta)
            stack.callback(hook(layer, branch).remove)
        for i, offset in (offsets or {}).items():
            for name, value in (("weight", offset.weight), ("bias", offset.bias)):
                parameter = getattr(layers.get(i), name, None)
                if value is None:
                    continue
                if parameter is None or parameter.shape != value.shape:
                    missing.append(i)
                    continue
                stack.callback(_restore, parameter, parameter.detach().clone())
                with torch.no_grad():
                    parameter.add_(value.to(parameter))
        yield missing


def _restore(parameter: nn.Parameter, before: Tensor) -> None:
    with torch.no_grad():
        parameter.copy_(before)


def _shape(delta: Factors | Tensor) -> tuple[int, int]:
    return delta.shape if isinstance(delta, Factors) else (delta.shape[0], delta[0].numel())
