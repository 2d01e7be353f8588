"""The demo's models and adapters: real names and layouts, narrow widths, weights drawn at random."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from converter.samples import SMALL, pruned, relative, sample_checkpoint
from lorax import (
    ARCHS,
    BaseHint,
    Checkpoint,
    Factors,
    LayerId,
    LayerKind,
    LayerSpec,
    Spectral,
    compute_basis,
    fingerprint,
    flatten_weight,
    open_checkpoint,
    write_adapter,
    write_native,
    write_safetensors,
)

LORA_RANK = 8
NATIVE_K = 24


@dataclass(frozen=True)
class Kin:
    """A source base, its relatives, and the adapters made for it."""

    title: str
    source: Path
    targets: tuple[Path, ...]
    adapters: tuple[Path, ...]


def build(out: Path, arch_name: str, pruned_name: str, title: str, label: str) -> Kin:
    """Write the base `label`-base, a fine-tune, a pruned relative, a LoRA and a LoRA-X file into the folder `out`."""
    archs = {arch.name: arch for arch in ARCHS}
    arch, smaller = archs[arch_name], archs[pruned_name]
    base = sample_checkpoint(arch, widths=SMALL, seed=len(label))
    models = {
        f"{label}-base": base,
        f"{label}-fine-tune": fine_tune(base),
        pruned_name: fine_tune(pruned(base, arch, smaller)),
    }
    paths = [_save(out / "models" / f"{name}.safetensors", tensors) for name, tensors in models.items()]
    with open_checkpoint(paths[0]) as source:
        lora = write_lora(out / "adapters" / f"{label}-lora.safetensors", source)
        native = write_lorax(out / "adapters" / f"{label}-lorax.safetensors", source)
    return Kin(title, paths[0], tuple(paths[1:]), (lora, native))


def fine_tune(base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same model after more training: it moved the middle of the network most, and left the text encoders alone."""
    groups: dict[float, list[str]] = {}
    for name in base:
        groups.setdefault(_drift(name), []).append(name)
    tuned: dict[str, Tensor] = {}
    for i, (noise, names) in enumerate(sorted(groups.items())):
        part = {name: base[name] for name in names}
        tuned |= relative(part, noise, seed=100 + i) if noise else part
    return {name: tuned[name] for name in base}


def _drift(name: str) -> float:
    found = re.match(r"model\.diffusion_model\.(input_blocks|middle_block|output_blocks)\.(\d+)", name)
    if not found:
        return 0.0
    depth = {"input_blocks": int(found[2]), "middle_block": 12, "output_blocks": 12 - int(found[2])}[found[1]]
    return round(0.04 + 0.035 * max(0, depth), 3)


def adapted(base: Checkpoint, roles: Sequence[str]) -> list[LayerSpec]:
    """The linear layers whose role starts with one of `roles`."""
    specs = (layer.spec for layer in base.layers.values())
    return [s for s in specs if s.kind == LayerKind.LINEAR and s.role.startswith(tuple(roles))]


def write_lora(path: Path, base: Checkpoint) -> Path:
    """An ordinary LoRA on attention, feed-forward and the text encoders, under kohya's names."""
    generator = torch.Generator().manual_seed(11)
    modules: dict[LayerId, Factors] = {}
    for spec in adapted(base, ("attn", "ff", "self_attn", "mlp")):
        layer = base.layers[spec.id]
        decay = torch.arange(1, LORA_RANK + 1).float() ** -0.5
        up = torch.randn(layer.out_features, LORA_RANK, generator=generator) * decay
        down = torch.randn(LORA_RANK, layer.in_features, generator=generator)
        modules[spec.id] = Factors(0.02 * up, 0.5 * down)
    shapes = {i: base.layers[i].shape for i in modules}
    metadata = {
        **_trained_on(base, path),
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(LORA_RANK),
        "ss_network_alpha": str(LORA_RANK),
    }
    write_adapter(path, modules, base.arch, shapes=shapes, metadata=metadata, overwrite=True)
    return path


def write_lorax(path: Path, base: Checkpoint) -> Path:
    """A LoRA-X file on the attention modules: σ alone, as training would leave it."""
    generator = torch.Generator().manual_seed(12)
    sigmas: dict[LayerId, Tensor] = {}
    prints: dict[LayerId, tuple[float, float, float, float]] = {}
    for spec in adapted(base, ("attn",)):
        basis = compute_basis(flatten_weight(base.read(base.layers[spec.id])), NATIVE_K)
        sigma = (0.2 * torch.randn(basis.k, generator=generator)).half()
        sigmas[spec.id] = sigma
        prints[spec.id] = fingerprint(Spectral(sigma).on(basis))
    hashes = base.hashes()
    hint = BaseHint(base.name, hashes.sha256 if hashes else None, hashes.autov1 if hashes else None)
    write_native(path, sigmas, base.arch, fingerprints=prints, k=NATIVE_K, base=hint, metadata=_trained_on(base, path), overwrite=True)
    return path


def _trained_on(base: Checkpoint, path: Path) -> dict[str, str]:
    hashes = base.hashes()
    told = {"ss_sd_model_name": base.paths[0].name, "ss_base_model_version": base.arch.base_model_version, "ss_output_name": path.stem}
    return {**told, "ss_new_sd_model_hash": hashes.sha256, "ss_sd_model_hash": hashes.autov1} if hashes else told


def _save(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    stored = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
    write_safetensors(path, stored, {"modelspec.title": path.stem}, overwrite=True)
    return path
