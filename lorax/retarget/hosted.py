"""What the WebUIs' own loaders take beyond a standard LoRA, or want beside it: norms, biases, whole attentions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from lorax.adapter import Adapter, Offset
from lorax.checkpoint import Checkpoint
from lorax.layers import Component, Layer, LayerId, LayerKind
from lorax.linalg import Factors
from lorax.transfer.run import Transferred
from lorax.transfer.types import UnitMatch

_ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj")


@dataclass(frozen=True, eq=False)
class Hosted:
    """A transferred adapter as a host gets it."""

    modules: Mapping[LayerId, Factors]
    shapes: Mapping[LayerId, tuple[int, ...]]
    offsets: Mapping[LayerId, Offset]
    """By layer of the target. They are copied: one number per channel spans no subspace to project on."""
    left_out: Mapping[LayerId, str]
    """Layers of the adapter whose offsets have no place, each with the reason."""


def hosted(adapter: Adapter, transferred: Transferred, target: Checkpoint) -> Hosted:
    """The transferred factors and the adapter's offsets, with a zero delta wherever the hosts want one.

    A bias is looked for beside factors only, and the WebUI applies the q, k, v and out of an OpenCLIP attention together or
    not at all (networks.network_apply_weights); a zero delta changes nothing.
    """
    offsets, left_out = place_offsets(adapter, target, transferred.report.plan.units)
    modules, shapes = dict(transferred.modules), dict(transferred.shapes)
    biased = [i for i in offsets if target.layers[i].spec.kind != LayerKind.NORM]
    for layer in (*biased, *_rest_of_attentions(modules, target)):
        if layer not in modules:
            found = target.layers[layer]
            modules[layer] = Factors(torch.zeros(found.out_features, 1), torch.zeros(1, found.in_features))
            shapes[layer] = found.shape
    return Hosted(modules, shapes, offsets, left_out)


def place_offsets(
    adapter: Adapter, target: Checkpoint, units: Sequence[UnitMatch]
) -> tuple[Mapping[LayerId, Offset], Mapping[LayerId, str]]:
    """The offsets by layer of the target, and why others have no place.

    units: the block map of the plan; components that it does not name are matched by name.
    """
    placed: dict[LayerId, Offset] = {}
    left_out: dict[LayerId, str] = {}
    for layer, offset in adapter.offsets.items():
        place = _counterpart(adapter, layer, units)
        found = None if place is None else target.layers.get(place)
        reason = "its block has no counterpart" if found is None else _refusal(found, offset, target)
        if found is None or reason:
            left_out[layer] = reason
        else:
            placed[found.id] = offset
    return placed, left_out


def _counterpart(adapter: Adapter, layer: LayerId, units: Sequence[UnitMatch]) -> LayerId | None:
    """The target's layer; None where its block has none."""
    spec = adapter.arch.specs()[layer]
    component = f"{layer.component}."
    by_blocks = any(u.target.startswith(component) for u in units)
    if not by_blocks or spec.unit.kind == "fixed":
        return layer
    unit = next((u.target for u in units if u.source == str(spec.unit)), None)
    return None if unit is None else LayerId(layer.component, f"{unit.removeprefix(component)}.{spec.role}")


def _refusal(layer: Layer, offset: Offset, target: Checkpoint) -> str:
    """Why the offset cannot be added there, or an empty string."""
    norm = layer.spec.kind == LayerKind.NORM
    if norm and layer.id.component != Component.UNET:
        return "the WebUIs' loaders take no norms of text encoders"
    if layer.id.component in _openclip(target) and ".self_attn." in layer.id.path:
        return "the WebUIs' loaders take no bias of an OpenCLIP attention"
    if offset.weight is not None and not (norm and offset.weight.numel() == math.prod(layer.shape)):
        return f"{offset.weight.numel()} numbers do not fit a {layer.spec.kind} of {list(layer.shape)}"
    if offset.bias is not None and layer.bias is None:
        return "the target's layer has no bias"
    if offset.bias is not None and offset.bias.numel() != layer.out_features:
        return f"{offset.bias.numel()} numbers do not fit a bias of {layer.out_features}"
    return ""


def _rest_of_attentions(modules: Mapping[LayerId, Factors], target: Checkpoint) -> Iterator[LayerId]:
    """q, k, v and out of every OpenCLIP attention of which some are there."""
    openclip = _openclip(target)
    for layer in list(modules):
        unit, attention, _ = layer.path.rpartition(".self_attn.")
        if attention and layer.component in openclip:
            yield from (LayerId(layer.component, f"{unit}.{role}") for role in _ATTENTION)


def _openclip(target: Checkpoint) -> set[Component]:
    return {component for component, text in target.arch.text if text.kind == "openclip"}
