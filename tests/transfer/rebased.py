"""A base model written in other channels: the same function in another basis, or a narrower model that keeps some channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor

from lorax.checkpoint import Checkpoint
from lorax.layers import ChannelSpace, LayerId, LayerKind, Sides
from lorax.safefile import open_tensors, write_safetensors
from lorax.transfer.align.links import space_sizes
from lorax.transfer.align.maps import ChannelMap, Dense, HeadRotation, Selection, identity, map_columns, map_rows
from lorax.transfer.align.timesteps import sinusoid_map

Maps = Mapping[ChannelSpace, ChannelMap]


def scrambling(base: Checkpoint, cell: int, heads: Callable[[int], int], seed: int = 0) -> dict[ChannelSpace, ChannelMap]:
    """Random maps that leave the model's function as it is: channels in another order within cells of `cell` neighbours (which lie
    in one norm group wherever they are read), heads in another order and rotated, GEGLU in another order with other signs.

    heads: how many an attention of this width has. The text encoders' own heads are rotated too.
    """
    generator = torch.Generator().manual_seed(seed)
    found: dict[ChannelSpace, ChannelMap] = {}
    orders: dict[str, Tensor] = {}
    for space, n in space_sizes(base, base.arch.wiring()).items():
        if space.kind in ("fixed", "timestep"):
            found[space] = identity(n)
        elif space.kind == "heads":
            h, attention = heads(n), str(space).rpartition(".")[0]
            order = orders.setdefault(attention, torch.randperm(h, generator=generator))
            blocks = torch.linalg.qr(torch.randn(h, n // h, n // h, generator=generator))[0]
            found[space] = HeadRotation(order, blocks, n)
        elif space.kind == "gated":
            signs = torch.randint(0, 2, (n,), generator=generator) * 2.0 - 1.0
            found[space] = Selection(torch.randperm(n, generator=generator), n, signs)
        else:
            cells = [torch.randperm(cell, generator=generator) + i for i in range(0, n, cell)]
            found[space] = Selection(torch.cat(cells), n)
    return found


def narrowing(base: Checkpoint, keep: int, cell: int, seed: int = 0) -> dict[ChannelSpace, ChannelMap]:
    """Maps that keep `keep` random channels of every `cell` neighbours of the UNet; its text stays as it is."""
    generator = torch.Generator().manual_seed(seed)
    found: dict[ChannelSpace, ChannelMap] = {}
    for space, n in space_sizes(base, base.arch.wiring()).items():
        if space.kind == "timestep":
            found[space] = Dense(sinusoid_map(n * keep // cell, n))
        elif space.kind == "fixed" or space.component != "unet":
            found[space] = identity(n)
        else:
            cells = [torch.randperm(cell, generator=generator)[:keep].sort().values + i for i in range(0, n, cell)]
            found[space] = Selection(torch.cat(cells), n)
    return found


def write_rebased(path: Path, base: Checkpoint, maps: Maps, noise: float = 0.0) -> Path:
    """The base with every weight as ``M_out W M_inᵀ``, biases and norms with their channels; `noise` of a weight's norm is added."""
    with closing(open_tensors(base.paths[0])) as file:
        tensors = {name: file.read(name) for name in file.tensors}
    wiring = base.arch.wiring()
    generator = torch.Generator().manual_seed(1)
    written: dict[str, Tensor] = {}
    for layer in base.layers.values():
        value = mapped(base.read(layer), wiring, layer.id, layer.spec.kind, maps)
        value = value + noise * value.square().mean().sqrt() * torch.randn(value.shape, generator=generator)
        put(written, tensors, layer.tensor, layer.rows, value)
        if layer.bias is not None:
            bias = base.read_bias(layer)
            assert bias is not None
            sides = wiring.get(layer.id)
            if sides is None:
                bias = norm_vector(bias, wiring, layer.id, maps)
            else:
                bias = map_rows(bias, maps[sides.out], sides.out.kind == "gated")
            put(written, tensors, layer.bias, layer.rows, bias)
    write_safetensors(path, {**tensors, **{n: t.contiguous() for n, t in written.items()}}, {})
    return path


def put(written: dict[str, Tensor], tensors: Mapping[str, Tensor], name: str, rows: tuple[int, int] | None, value: Tensor) -> None:
    """A tensor, or its rows of a fused one (whose size must not change)."""
    if rows is None:
        written[name] = value
    else:
        written.setdefault(name, tensors[name].float().clone())[slice(*rows)] = value


def mapped(weight: Tensor, wiring: Mapping[LayerId, Sides], layer: LayerId, kind: LayerKind, maps: Maps) -> Tensor:
    if kind == LayerKind.NORM:
        return norm_vector(weight, wiring, layer, maps)
    sides = wiring[layer]
    if kind == LayerKind.EMBEDDING:
        return maps[sides.out].apply(weight.T).T
    rows = map_rows(weight, maps[sides.out], sides.out.kind == "gated")
    return map_columns(rows.flatten(2) if rows.ndim > 2 else rows[:, :, None], [maps[s] for s in sides.inputs]).reshape(
        rows.shape[0], -1, *rows.shape[2:]
    )


READERS = {
    "norm1": ("conv1", "attn1.to_q"),
    "norm2": ("conv2", "attn2.to_q"),
    "norm3": ("ff.net.0.proj",),
    "norm": ("proj_in",),
    "conv_norm_out": ("conv_out",),
    "layer_norm1": ("self_attn.q_proj",),
    "layer_norm2": ("mlp.fc1",),
    "final_layer_norm": ("encoder.layers.0.mlp.fc1",),
}
"""Norm → the layer that reads its output, within the same block."""


def norm_vector(vector: Tensor, wiring: Mapping[LayerId, Sides], norm: LayerId, maps: Maps) -> Tensor:
    """A norm's scale or shift, with the channels that it acts on."""
    head, _, name = norm.path.rpartition(".")
    reader = next(i for r in READERS[name] if (i := LayerId(norm.component, f"{head}.{r}" if head else r)) in wiring)
    inputs = [maps[s] for s in wiring[reader].inputs]
    return map_columns(vector[None, :, None], inputs).flatten()
