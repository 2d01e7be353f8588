"""Relatives of a sample: a fine-tune of it, and a pruned model that keeps some of its blocks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from converter.samples.layouts import Layout, place
from lorax import Arch, Component, LayerId

_TEN_TO_FOUR = (1, 2, 3, 7)
"""Which of SDXL's ten transformer blocks became the four of SSD-1B, by an independent estimate from the real weights."""


SCHEDULE = ("betas", "alphas_cumprod")
"""Tensors of single files that some WebUIs take their noise schedule from."""


def relative(tensors: Mapping[str, Tensor], noise: float = 0.1, seed: int = 1, keep: Sequence[str] = ()) -> dict[str, Tensor]:
    """A fine-tune: every weight moved by `noise` times its own size in a random direction; the noise schedule stays.

    keep: tensors whose names start so stay as they are (fine-tunes often share their text encoders).
    """
    generator = torch.Generator().manual_seed(seed)
    still = (*SCHEDULE, *keep)
    return {n: t if n.startswith(still) else _moved(t, noise, generator) for n, t in tensors.items()}


def pruned(
    tensors: Mapping[str, Tensor],
    source: Arch,
    target: Arch,
    blocks: Mapping[str, str] | None = None,
    layout: Layout = "single_file",
    noise: float = 0.05,
    seed: int = 2,
) -> dict[str, Tensor]:
    """A model of the `target` architecture made of blocks of a `source` model, under the target's names, a little moved.

    blocks: target block → source block (unit paths of the UNet); `block_map` by default. Text encoders stay as they are.
    """
    blocks = block_map(source, target) if blocks is None else blocks
    specs, kept = source.specs(), dict[str, Tensor]()
    for spec in target.layers():
        unit = blocks.get(spec.unit.path, spec.unit.path) if spec.id.component == Component.UNET else spec.unit.path
        origin = specs[LayerId(spec.id.component, f"{unit}.{spec.role}" if unit else spec.role)]
        name, old = place(target, spec, layout)[0], place(source, origin, layout)[0]
        kept[name] = tensors[old]
        bias, old_bias = (n.removesuffix("weight") + "bias" for n in (name, old))
        if old_bias in tensors:
            kept[bias] = tensors[old_bias]
    generator = torch.Generator().manual_seed(seed)
    start = "model.diffusion_model." if layout == "single_file" else "unet."
    moved = {n: _moved(t, noise, generator) if n.startswith(start) else t for n, t in kept.items()}
    return moved | {n: t for n, t in tensors.items() if not n.startswith(start) and n not in moved}


def block_map(source: Arch, target: Arch) -> dict[str, str]:
    """Which UNet block of `source` each block of `target` was made of, as the real prunings were.

    SSD-1B keeps 4 of 10 transformer blocks and 1 of 2. BK-SDM drops the second residual block of each level of the down path
    and the middle one of the up path; its tiny drops the innermost level too. Others keep the first blocks.
    """
    if target.unet is None or source.unet is None:
        return {}
    fewer_levels = len(source.unet.up) - len(target.unet.up)
    fewer_resnets = len(source.unet.up[0].depths) - len(target.unet.up[0].depths)
    found: dict[str, str] = {}
    for unit in {spec.unit for spec in target.layers() if spec.id.component == Component.UNET and spec.unit.path}:
        path = unit.path
        if path.startswith("up_blocks."):
            level = int(path.split(".")[1])
            path = path.replace(f"up_blocks.{level}", f"up_blocks.{level + fewer_levels}", 1)
            if fewer_resnets:
                path = re.sub(r"(resnets|attentions)\.1", r"\1.2", path)
        attention, _, block = path.partition(".transformer_blocks.")
        if block and _depth(source, attention) == 10 and _depth(target, attention) == 4:
            path = f"{attention}.transformer_blocks.{_TEN_TO_FOUR[int(block)]}"
        found[unit.path] = path
    return found


def _depth(arch: Arch, attention: str) -> int:
    inside = f"{attention}.transformer_blocks."
    return len({spec.unit.path for spec in arch.layers() if spec.unit.path.startswith(inside)})


def _moved(tensor: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    values = tensor.float()
    step = torch.randn(tensor.shape, generator=generator)
    return (values + noise * step * values.square().mean().sqrt()).to(tensor.dtype)
