"""Adapters with biases and norms, and the same in the form that AUTOMATIC1111's built-in applies by itself."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lorax import open_checkpoint, open_tensors
from lorax.archs import kohya_names
from lorax.layers import LayerKind
from lorax.safefile import write_safetensors

ALONE = ("lora_unet_down_blocks_0_resnets_0_conv1", "lora_te_text_model_encoder_layers_0_mlp_fc1")
"""Get a bias; no adapter of the tests has factors for the first, and the second loses them."""
BESIDE = ("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0", "lora_unet_down_blocks_0_attentions_0_proj_in")
"""Get a bias beside their factors."""
NORMS = ("lora_unet_down_blocks_0_attentions_0_norm", "lora_unet_down_blocks_0_resnets_0_norm2")


def write_offsets(path: Path, factors: Path, checkpoint: Path, *, beside: bool) -> Path:
    """`factors` with biases on layers that have none of them, on norms, and perhaps beside factors."""
    tensors = _without(_read(factors), ALONE) | _norms(checkpoint)
    for name in (*ALONE, *(BESIDE if beside else ())):
        tensors[f"{name}.diff_b"] = _numbers(checkpoint, name)
    return _write(path, tensors, factors)


def write_expected(path: Path, factors: Path, checkpoint: Path, *, beside: bool) -> Path:
    """The same for the built-in, which takes a bias beside whole weights only."""
    given = _read(factors)
    tensors = _without(given, (*ALONE, *(BESIDE if beside else ()))) | _norms(checkpoint)
    for name in (*ALONE, *(BESIDE if beside else ())):
        tensors[f"{name}.diff_b"] = _numbers(checkpoint, name)
        tensors[f"{name}.diff"] = torch.zeros(_shape(checkpoint, name)) if name in ALONE else _delta(given, name)
    return _write(path, tensors, factors)


def _read(path: Path) -> dict[str, Tensor]:
    with open_tensors(path) as file:
        return {name: file.read(name).clone() for name in file.tensors}


def _write(path: Path, tensors: dict[str, Tensor], factors: Path) -> Path:
    with open_tensors(factors) as file:
        kept = ("ss_base_model_version", "ss_sd_model_name")
        metadata = {key: value for key, value in file.metadata.items() if key in kept}
    write_safetensors(path, tensors, metadata, overwrite=True)
    return path


def _without(tensors: dict[str, Tensor], names: tuple[str, ...]) -> dict[str, Tensor]:
    return {key: t for key, t in tensors.items() if key.partition(".")[0] not in names}


def _norms(checkpoint: Path) -> dict[str, Tensor]:
    return {f"{name}.{leaf}": sign * _numbers(checkpoint, name) for name in NORMS for leaf, sign in (("w_norm", 1), ("b_norm", -1))}


def _numbers(checkpoint: Path, name: str) -> Tensor:
    return torch.linspace(-0.5, 0.7, _shape(checkpoint, name)[0])


def _shape(checkpoint: Path, name: str) -> tuple[int, ...]:
    with open_checkpoint(checkpoint) as base:
        layer = base.layers[kohya_names(base.arch)[name]]
    assert (name in NORMS) == (layer.spec.kind == LayerKind.NORM)
    return layer.shape


def _delta(tensors: dict[str, Tensor], name: str) -> Tensor:
    up, down = tensors[f"{name}.lora_up.weight"], tensors[f"{name}.lora_down.weight"]
    assert float(tensors[f"{name}.alpha"]) == down.shape[0]
    return (up.flatten(1) @ down.flatten(1)).reshape(up.shape[0], *down.shape[1:])
