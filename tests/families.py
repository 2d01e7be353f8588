"""Small families of base models and adapters for tests, in genuine layouts; written once a session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from converter.samples import TINY, Widths, pruned, relative, sample_checkpoint
from converter.samples.widths import layer_shapes
from lorax.archs import by_name, detect
from lorax.formats import write_adapter
from lorax.layers import Component, LayerId, LayerKind, LayerSpec
from lorax.linalg import Factors
from lorax.safefile import write_safetensors
from lorax.structure import Arch, UNetStructure
from lorax.structure.blocks import down_stage, up_stage

MEDIUM = Widths(channels=(16, 32, 48, 48), groups=8, text1=16, text2=24, vocabulary=16)
"""Wide enough for similarity at a rank over 1."""


@dataclass(frozen=True)
class Family:
    """A source base, relatives of it, and a stranger, as single files in a folder."""

    folder: Path
    arch: Arch
    widths: Widths

    def __getitem__(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"


def write_family(folder: Path, arch_name: str, pruned_name: str, widths: Widths = MEDIUM, dtype: torch.dtype = torch.float16) -> Family:
    """source, fine (a fine-tune with the source's text encoders), pruned, other (an independent training)."""
    folder.mkdir(parents=True, exist_ok=True)
    arch, small = by_name(arch_name), by_name(pruned_name)
    source = sample_checkpoint(arch, widths=widths)
    models = {
        "source": source,
        "fine": relative(source, 0.2, keep=("cond_stage_model.", "conditioner.")),
        "pruned": pruned(source, arch, small),
        "other": sample_checkpoint(arch, widths=widths, seed=7),
    }
    family = Family(folder, arch, widths)
    for name, tensors in models.items():
        stored = {n: t.to(dtype) if t.is_floating_point() else t for n, t in tensors.items()}
        write_safetensors(family[name], stored, {})
    return family


def is_attention(spec: LayerSpec) -> bool:
    return spec.kind == LayerKind.LINEAR and spec.role.startswith(("attn", "self_attn"))


def random_lora(
    family: Family, rank: int = 4, seed: int = 3, wanted: Callable[[LayerSpec], bool] = is_attention
) -> tuple[dict[LayerId, Factors], dict[LayerId, tuple[int, ...]]]:
    """Random factors for the wanted layers of the family's source, and the shapes of their weights."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {i: s for i, s in layer_shapes(family.arch, family.widths).items() if wanted(family.arch.specs()[i])}
    modules: dict[LayerId, Factors] = {}
    for i, shape in shapes.items():
        columns = torch.Size(shape[1:]).numel()
        r = min(rank, shape[0], columns)
        modules[i] = Factors(torch.randn(shape[0], r, generator=generator) * 0.05, torch.randn(r, columns, generator=generator) * 0.05)
    return modules, shapes


def write_lora(path: Path, family: Family, **kwargs: object) -> Path:
    """An ordinary kohya LoRA for the family's source."""
    modules, shapes = random_lora(family, **kwargs)  # type: ignore[arg-type]
    metadata = {"ss_base_model_version": family.arch.base_model_version, "ss_sd_model_name": "source.safetensors"}
    write_adapter(path, modules, family.arch, shapes=shapes, metadata=metadata)
    return path


def two_levels() -> Arch:
    """A pruning of SD1 that has no name: fewer levels than any that has, and a middle block, which the smallest of those lacks."""
    down = down_stage(1), down_stage(1, sampler=False, widens=True)
    unet = UNetStructure(down, 2, 1, (up_stage(1, 1), up_stage(1, 1, sampler=False)), linear_projection=False, added_embedding=False)
    return detect(unet, by_name("sd1").text)


__all__ = ["MEDIUM", "TINY", "Component", "Family", "is_attention", "random_lora", "two_levels", "write_family", "write_lora"]
