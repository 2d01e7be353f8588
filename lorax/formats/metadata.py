"""Metadata of the files that we write. Loaders act on it, so it is part of the format (docs/format.md)."""

from __future__ import annotations

import datetime
import json
from collections import Counter
from collections.abc import Mapping
from typing import Protocol

from lorax.adapter import Adapter
from lorax.digest import sha256_file
from lorax.layers import LayerId, LayerKind
from lorax.structure import Arch
from lorax.version import VERSION

DYNAMIC = "Dynamic"
"""What kohya writes for a rank or an alpha that differs between modules."""
_REPLACED = (
    "ss_output_name",
    "ss_base_model_version",
    "ss_v2",
    "ss_sd_model_name",
    "ss_sd_model_hash",
    "ss_new_sd_model_hash",
    "ss_network_module",
    "ss_network_dim",
    "ss_network_alpha",
    "ss_network_args",
    "ss_training_comment",
)
_KEPT = (
    "modelspec.author",
    "modelspec.description",
    "modelspec.license",
    "modelspec.tags",
    "modelspec.thumbnail",
    "modelspec.trigger_phrase",
    "modelspec.usage_hint",
    "modelspec.resolution",
    "ssmd_",
    "ss_",
)
_RESOLUTION = {"sd1": "512x512", "sd2": "512x512", "sdxl": "1024x1024"}
_ORIGINAL = "https://github.com/Stability-AI/generative-models"


class Hashes(Protocol):
    """The hashes of a base, as A1111 and sd-scripts take them."""

    @property
    def sha256(self) -> str | None: ...

    @property
    def autov1(self) -> str | None: ...


def output_metadata(
    adapter: Adapter,
    target_name: str,
    target_hashes: Hashes | None,
    arch: Arch,
    stem: str,
    ranks: Mapping[LayerId, int],
    settings: Mapping[str, str],
    *,
    action: str = "transfer",
    source_name: str | None = None,
    prediction_type: str | None = None,
    summary: Mapping[str, str] | None = None,
    date: str | None = None,
    adapter_sha256: str | None = None,
) -> dict[str, str]:
    """The metadata of a file made from `adapter` for the base `target_name` of architecture `arch`.

    target_hashes: None for a base that is a folder; hashes of the source's base are never kept in their place.
    stem: of the output file, which is its alias in prompts. ranks: as written. settings, summary: what was asked for and what
    came of it, stored as JSON under ``lorax.``. action: ``transfer``, ``distill``, ``to-lorax`` or ``export``. date: ISO 8601, or today.
    adapter_sha256: of the adapter's file, where it is known already.
    """
    kept = {key: value for key, value in adapter.metadata.items() if key.startswith(_KEPT) and key not in _REPLACED}
    velocity = (prediction_type or "epsilon").startswith("v")
    return {
        **kept,
        **_network(ranks, arch),
        **_base(target_name, target_hashes, arch, velocity),
        **_modelspec(adapter, arch, stem, kept, velocity, date),
        "ss_output_name": stem,
        "ss_training_comment": _comment(adapter, action, target_name),
        **_provenance(adapter, target_name, target_hashes, settings, action, source_name, summary, adapter_sha256),
    }


def _network(ranks: Mapping[LayerId, int], arch: Arch) -> dict[str, str]:
    """What kohya's ``networks.lora`` would have written: 3×3 convolutions have a rank of their own."""
    specs = arch.specs()
    kernels = {
        i: r for i, r in ranks.items() if specs[i].kind == LayerKind.CONV and specs[i].role not in ("proj_in", "proj_out", "conv_shortcut")
    }
    dim = _common([r for i, r in ranks.items() if i not in kernels] or list(ranks.values()))
    conv = _common(list(kernels.values()))
    args = {"ss_network_args": json.dumps({"conv_dim": conv, "conv_alpha": conv})} if kernels else {}
    return {"ss_network_module": "networks.lora", "ss_network_dim": dim, "ss_network_alpha": dim, **args}


def _common(ranks: list[int]) -> str:
    return str(ranks[0]) if len(Counter(ranks)) == 1 else DYNAMIC


def _base(name: str, hashes: Hashes | None, arch: Arch, velocity: bool) -> dict[str, str]:
    """The base that the file is for: A1111 sorts by version and hides what does not fit, and looks bases up by hash."""
    told = {
        "ss_base_model_version": arch.base_model_version + ("_v" if velocity and arch.family != "sdxl" else ""),
        "ss_v2": str(arch.family == "sd2"),
        "ss_sd_model_name": name,
        "ss_sd_model_hash": hashes.autov1 if hashes else None,
        "ss_new_sd_model_hash": hashes.sha256 if hashes else None,
    }
    return {key: value for key, value in told.items() if value}


def _modelspec(adapter: Adapter, arch: Arch, stem: str, kept: Mapping[str, str], velocity: bool, date: str | None) -> dict[str, str]:
    """Stability's ModelSpec 1.0.0; Forge reads the architecture before anything else."""
    architecture = arch.modelspec_architecture
    if arch.family == "sd2":
        architecture = "stable-diffusion-v2-768-v" if velocity else "stable-diffusion-v2-512"
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{architecture}/lora",
        "modelspec.implementation": _ORIGINAL if arch.family == "sdxl" else "diffusers",
        "modelspec.title": stem,
        "modelspec.resolution": kept.get("modelspec.resolution", _RESOLUTION.get(arch.family, "512x512")),
        "modelspec.date": date or datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "modelspec.prediction_type": "v" if velocity else "epsilon",
        "modelspec.merged_from": adapter.metadata.get("modelspec.title") or adapter.name,
    }


def _comment(adapter: Adapter, action: str, target_name: str) -> str:
    done = {
        "transfer": f"carried from '{adapter.name}' to {target_name} by LoRA-X {VERSION}, without training",
        "distill": f"distilled from '{adapter.name}' for {target_name} by LoRA-X {VERSION}, by training on the models' own samples",
        "to-lorax": f"'{adapter.name}' put into LoRA-X form on {target_name}",
        "export": f"standard LoRA of the LoRA-X adapter '{adapter.name}' for {target_name}",
    }.get(action, f"{action} of '{adapter.name}' for {target_name}")
    before = adapter.metadata.get("ss_training_comment")
    return f"{done}; {before}" if before and before != "None" else done


def _provenance(
    adapter: Adapter,
    target_name: str,
    target_hashes: Hashes | None,
    settings: Mapping[str, str],
    action: str,
    source_name: str | None,
    summary: Mapping[str, str] | None,
    adapter_sha256: str | None,
) -> dict[str, str]:
    if adapter_sha256 is None and adapter.path and adapter.path.is_file():
        adapter_sha256 = sha256_file(adapter.path)
    told = {
        "lorax.version": VERSION,
        "lorax.action": action,
        "lorax.source_adapter": adapter.name,
        "lorax.source_adapter_sha256": adapter_sha256,
        "lorax.source_base": source_name or adapter.base.name,
        "lorax.target_base": target_name,
        "lorax.target_base_sha256": target_hashes.sha256 if target_hashes else None,
        "lorax.settings": json.dumps(dict(settings), sort_keys=True),
        "lorax.report": json.dumps(dict(summary), sort_keys=True) if summary else None,
    }
    return {key: value for key, value in told.items() if value}
