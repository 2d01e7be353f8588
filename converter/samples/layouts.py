"""Random weights with realistic spectra, laid out under the real names of the real files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from converter.samples.widths import SMALL, Widths, diffusers_config, has_bias, layer_shapes, text_config
from lorax import Arch, Component, LayerKind, LayerSpec, Stored, write_safetensors, write_text

Layout = Literal["single_file", "diffusers"]
DECAY = 0.7
"""Singular values fall as i^-0.7, about as those of real attention weights do."""
_FOLDERS = {Component.UNET: "unet", Component.TE1: "text_encoder", Component.TE2: "text_encoder_2"}


def sample_checkpoint(
    arch: Arch, layout: Layout = "single_file", widths: Widths = SMALL, seed: int = 0, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """All tensors of a narrow base model of this architecture; one seed, one model, whatever the layout.

    single_file: the LDM or SGM names of a checkpoint file (without a VAE). diffusers: names behind ``unet.``,
    ``text_encoder.`` and ``text_encoder_2.``, which `write_diffusers` puts into a folder.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    shapes = layer_shapes(arch, widths)
    for spec in arch.layers():
        name, stored = place(arch, spec, layout)
        _put(tensors, name, stored, _weight(spec, shapes[spec.id], generator))
        if has_bias(spec):
            bias = 0.02 * torch.randn(shapes[spec.id][0], generator=generator)
            _put(tensors, name.removesuffix("weight") + "bias", stored, bias)
    _beside(tensors, arch, layout, widths, generator)
    return {name: t.to(dtype).contiguous() if t.is_floating_point() else t for name, t in tensors.items()}


def place(arch: Arch, spec: LayerSpec, layout: Layout) -> tuple[str, Stored]:
    """Name of the layer's weight in a file of this layout, and its place in that tensor."""
    stored = spec.single_file if layout == "single_file" else spec.diffusers
    return prefix(arch, spec.id.component, layout) + stored.module + stored.suffix, stored


def prefix(arch: Arch, component: Component, layout: Layout) -> str:
    """What stands before the names of a component's tensors."""
    if layout == "diffusers":
        return f"{_FOLDERS[component]}."
    if component == Component.UNET:
        return "model.diffusion_model."
    inner = "transformer." if dict(arch.text)[component].kind == "clip" else "model."
    if arch.family == "sdxl":
        return f"conditioner.embedders.{int(component == Component.TE2)}.{inner}"
    return f"cond_stage_model.{inner}"


def write_diffusers(folder: Path, arch: Arch, tensors: Mapping[str, Tensor], widths: Widths = SMALL, *, overwrite: bool = False) -> None:
    """Write tensors of the diffusers layout as a folder that diffusers' own `from_pretrained` of each network can read."""
    for component in arch.components:
        home, start = folder / _FOLDERS[component], prefix(arch, component, "diffusers")
        home.mkdir(parents=True, exist_ok=True)
        inside = {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}
        unet = component == Component.UNET
        config = diffusers_config(arch, widths) if unet else text_config(arch, component, widths)
        config["_class_name" if unet else "model_type"] = "UNet2DConditionModel" if unet else "clip_text_model"
        name = "diffusion_pytorch_model.safetensors" if unet else "model.safetensors"
        write_safetensors(home / name, inside, {"format": "pt"}, overwrite=overwrite)
        write_text(home / "config.json", json.dumps(config, indent=2), overwrite=overwrite)


def _put(tensors: dict[str, Tensor], name: str, stored: Stored, value: Tensor) -> None:
    """Store a value, or its row block of a fused tensor."""
    if stored.parts == 1:
        tensors[name] = value
        return
    rows = value.shape[0]
    fused = tensors.setdefault(name, torch.zeros(stored.parts * rows, *value.shape[1:]))
    fused[stored.part * rows : (stored.part + 1) * rows] = value


def _weight(spec: LayerSpec, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if spec.kind == LayerKind.NORM:
        return 1 + 0.05 * torch.randn(shape, generator=generator)
    if spec.kind == LayerKind.EMBEDDING:
        return 0.02 * torch.randn(shape, generator=generator)
    return power_law(shape[0], math.prod(shape[1:]), generator).reshape(shape)


def power_law(out: int, columns: int, generator: torch.Generator) -> Tensor:
    """``U diag(i^-0.7) Vᵀ`` [out, columns] with random orthonormal U and V, scaled so that activations keep their size."""
    k = min(out, columns)
    s = torch.arange(1, k + 1, dtype=torch.float32) ** -DECAY
    left, right = (_shuffled(_orthonormal(n, k), generator) for n in (out, columns))
    return (left * (s * math.sqrt(out / float(s.square().sum())))) @ right.T


@lru_cache(maxsize=256)
def _orthonormal(n: int, k: int) -> Tensor:
    """Random orthonormal columns [n, k], the same at every call."""
    return torch.linalg.qr(torch.randn(n, k, generator=torch.Generator().manual_seed(n * 65537 + k)))[0]


def _shuffled(columns: Tensor, generator: torch.Generator) -> Tensor:
    """The columns under a random signed permutation of the axes: orthonormal still, and cheaper than another QR."""
    order = torch.randperm(columns.shape[0], generator=generator)
    signs = torch.randint(0, 2, (columns.shape[0], 1), generator=generator) * 2.0 - 1.0
    return columns[order] * signs


def _beside(tensors: dict[str, Tensor], arch: Arch, layout: Layout, widths: Widths, generator: torch.Generator) -> None:
    """Tensors without a layer that the real files have: OpenCLIP's projection, CLIP's positions, the noise schedule."""
    for component, structure in arch.text:
        start, width = prefix(arch, component, layout), widths.text(arch.family, component)
        if structure.kind == "clip" and layout == "single_file":
            tensors[f"{start}text_model.embeddings.position_ids"] = torch.arange(77).reshape(1, 77)
        elif structure.kind == "openclip" and layout == "single_file":
            tensors[f"{start}text_projection"] = power_law(width, width, generator)
            tensors[f"{start}logit_scale"] = torch.tensor(4.6)
        elif component == Component.TE2:
            tensors[f"{start}text_projection.weight"] = power_law(width, width, generator).T
    if layout == "single_file" and arch.family != "sdxl":
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
        tensors |= {"betas": betas, "alphas_cumprod": (1 - betas).cumprod(0)}
