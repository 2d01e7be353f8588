"""Small adapters for the narrow checkpoint, a bake of them, and what the tests ask of the result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from narrow import ARCH, WIDTH

from lorax.adapter import Adapter, AdapterModule, LowRank, Offset
from lorax.bake import BakeReport, bake
from lorax.checkpoint import Checkpoint, open_checkpoint
from lorax.errors import LoraxError
from lorax.header import tensor_bytes
from lorax.layers import Component, LayerId
from lorax.safefile import open_tensors

BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
TO_Q = LayerId(Component.UNET, f"{BLOCK}.attn1.to_q")
TO_K2 = LayerId(Component.UNET, f"{BLOCK}.attn2.to_k")
NORM = LayerId(Component.UNET, f"{BLOCK}.norm1")
CONV = LayerId(Component.UNET, "down_blocks.0.resnets.0.conv1")
TEXT_Q, TEXT_K, TEXT_V = (LayerId(Component.TE1, f"text_model.encoder.layers.1.self_attn.{n}_proj") for n in "qkv")
GONE = LayerId(Component.UNET, "down_blocks.7.resnets.0.conv1")

GENERATOR = torch.Generator().manual_seed(7)


def random(*size: int, scale: float = 0.05) -> torch.Tensor:
    return torch.randn(*size, generator=GENERATOR) * scale


def low_rank(rank: int = 4) -> LowRank:
    return LowRank(random(WIDTH, rank).half(), random(rank, WIDTH).half(), 0.5)


def adapter(modules: Mapping[LayerId, AdapterModule], offsets: Mapping[LayerId, Offset] | None = None, **more: object) -> Adapter:
    fields = {"name": "style", "path": None, "format": "kohya", "arch": ARCH, "modules": modules, "offsets": offsets or {}}
    return Adapter(**{**fields, **more})


def weights(path: Path) -> dict[str, torch.Tensor]:
    with open_tensors(path) as file:
        return {name: file.read(name) for name in file.tensors}


def layer_weight(checkpoint: Checkpoint, layer: LayerId) -> torch.Tensor:
    return checkpoint.read(checkpoint.layers[layer])


def run(base: Path, *adapters: tuple[Adapter, float], **more: object) -> tuple[BakeReport, Path]:
    out = base.with_name("out.safetensors")
    return bake(base, adapters, out, device="cpu", **more), out


def changed(before: Path, after: Path) -> set[str]:
    old, new = weights(before), weights(after)
    assert {n: (t.dtype, t.shape) for n, t in old.items()} == {n: (t.dtype, t.shape) for n, t in new.items()}
    return {name for name in old if tensor_bytes(old[name]) != tensor_bytes(new[name])}


def names(path: Path, *layers: LayerId) -> set[str]:
    with open_checkpoint(path) as checkpoint:
        return {checkpoint.layers[layer].tensor for layer in layers}


def refused(base: Path, error: type[LoraxError], message: str, *adapters: tuple[Adapter, float], **more: object) -> None:
    """The bake stops with one line, and leaves the folder as it was."""
    before = sorted(base.parent.iterdir())
    with pytest.raises(error, match=message) as e:
        run(base, *adapters, **more)
    assert "\n" not in str(e.value)
    assert sorted(base.parent.iterdir()) == before
