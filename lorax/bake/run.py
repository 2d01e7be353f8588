"""Write the checkpoint with the adapters in it, one tensor at a time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from lorax.adapter import Adapter
from lorax.bake.merge import Merge
from lorax.bake.plan import Absent, check_output, plan_bake
from lorax.bases import Bases
from lorax.checkpoint import Checkpoint, open_checkpoint
from lorax.device import resolve_device
from lorax.safefile import stream_safetensors
from lorax.safefile.gguf import TYPES
from lorax.version import VERSION

STALE = ("modelspec.hash_sha256", "sshs_model_hash", "sshs_legacy_hash", TYPES)
"""Metadata that is wrong once a weight has changed, or is written as another type."""


@dataclass(frozen=True)
class BakedAdapter:
    """What became of one adapter."""

    name: str
    strength: float
    placed: int
    """Modules and offsets that are in the output."""
    absent: tuple[Absent, ...]
    """Modules and offsets that the checkpoint has no place for."""
    unmatched: tuple[tuple[str, str], ...]
    """Keys of the adapter's file that were not placed when it was read, each with its reason."""


@dataclass(frozen=True)
class BakeReport:
    """What a bake wrote."""

    checkpoint: str
    output: str
    adapters: tuple[BakedAdapter, ...]
    tensors: int
    """All tensors of the output."""
    changed: int
    """Tensors that the adapters changed; the others are those of the input, byte by byte."""
    rounding: float
    """Energy of the rounding to the stored dtypes over the energy of the change: 0.01 drowns a hundredth of it in noise."""
    notes: tuple[str, ...]
    seconds: float


def bake(
    checkpoint: str | Path,
    adapters: Sequence[tuple[Adapter, float]],
    out: Path,
    *,
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
    device: str = "auto",
    bases: Bases | None = None,
) -> BakeReport:
    """Merge `adapters`, each with its strength, into a single-file checkpoint, and write it to `out` as safetensors.

    ``W' = W + Σ strength_i · ΔW_i(W)``: kinds that depend on the base (DoRA, IA3, OFT, GLoRA, LoRA-X) are all computed against
    the ORIGINAL weight, so the order of the adapters does not matter. Every tensor keeps its stored dtype; those that no adapter
    touches keep their bytes. Metadata is kept, less hashes that would be wrong, plus ``modelspec.merged_from`` and
    ``lorax.baked``. One tensor is in memory at a time; after any exception there is no output.

    progress: called with (text, tensors done, tensors in all); may raise to stop. bases: where LoRA-X modules find the base's
    singular vectors. Raises as `plan_bake` and `stream_safetensors`; WouldOverwrite where `out` is an input; BaseMismatch for a
    LoRA-X adapter of another base; LoraxError naming the layer where the sum does not fit the stored dtype.
    """
    start = time.perf_counter()
    with open_checkpoint(checkpoint) as base:
        out = Path(out)
        check_output(out, base, adapters)
        plan = plan_bake(base, adapters)
        merge = Merge(plan, adapters, resolve_device(device), bases or Bases())
        total, done = len(plan.file.tensors), 0

        def read(name: str) -> Tensor:
            nonlocal done
            if progress is not None:
                progress("baking", done, total)
            done += 1
            return merge.read(name)

        metadata = _metadata(plan.file.metadata, base, adapters)
        stream_safetensors(out, list(plan.file.tensors.values()), read, metadata, overwrite=overwrite)
        if progress is not None:
            progress("baking", total, total)
        baked = tuple(
            BakedAdapter(adapter.name, strength, placed, absent, adapter.unmatched)
            for (adapter, strength), placed, absent in zip(adapters, plan.placed, plan.absent, strict=True)
        )
        seconds = time.perf_counter() - start
        return BakeReport(base.name, str(out), baked, total, len(plan.edits), merge.rounding, plan.notes, seconds)


def _metadata(old: Mapping[str, str], base: Checkpoint, adapters: Sequence[tuple[Adapter, float]]) -> dict[str, str]:
    """The input's metadata with what was done to it; a checkpoint baked into twice tells of both times."""
    metadata = {"format": "pt", **{key: value for key, value in old.items() if key not in STALE}}
    parents = [old.get("modelspec.merged_from") or base.name, *(adapter.name for adapter, _ in adapters)]
    metadata["modelspec.merged_from"] = ", ".join(parents)
    baked = [
        {"adapter": adapter.name, "strength": strength, "sha256": adapter.metadata.get("sshs_model_hash"), "checkpoint": base.name}
        for adapter, strength in adapters
    ]
    metadata["lorax.baked"] = json.dumps([*_baked_before(old), *baked], ensure_ascii=False)
    metadata["lorax.version"] = VERSION
    return metadata


def _baked_before(old: Mapping[str, str]) -> list[Any]:
    try:
        before: Any = json.loads(old.get("lorax.baked", "[]"))
    except ValueError:
        return []
    return cast("list[Any]", before) if isinstance(before, list) else []
