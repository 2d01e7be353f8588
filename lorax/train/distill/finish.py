"""The file that a distillation leaves: a standard LoRA for the target that says it was trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lorax.actions import DTYPES
from lorax.adapter import Adapter
from lorax.checkpoint import Checkpoint
from lorax.formats import copy_sidecars, output_metadata, write_adapter
from lorax.layers import LayerId
from lorax.linalg import Factors
from lorax.train.distill.settings import DistillSettings
from lorax.transfer.types import Progress


def write_distilled(
    output: Path,
    adapter: Adapter,
    source: Checkpoint,
    target: Checkpoint,
    deltas: Mapping[LayerId, Factors],
    settings: DistillSettings,
    told: Mapping[str, str],
    progress: Progress,
) -> int:
    """Write it, and the files beside the adapter too; gives the number of layers. told: what came of it, for the metadata."""
    scaled = {i: f.scaled(settings.strength) for i, f in deltas.items() if f.rank}
    metadata = output_metadata(
        adapter,
        target.name,
        target.hashes(lambda done, total: progress("hashing the target for its metadata", done >> 20, max(1, total >> 20))),
        target.arch,
        output.stem,
        {i: f.rank for i, f in scaled.items()},
        settings.bound(),
        action="distill",
        source_name=source.name,
        prediction_type=target.prediction_type,
        summary={"method": "distill", "trained": "true", **told},
    )
    write_adapter(
        output,
        scaled,
        target.arch,
        shapes={i: target.layers[i].shape for i in scaled},
        format=settings.format,
        dtype=DTYPES[settings.dtype],
        metadata=metadata,
        overwrite=settings.overwrite or settings.resume,
    )
    if adapter.path is not None:
        copy_sidecars(adapter.path, output, overwrite=settings.overwrite or settings.resume)
    return len(scaled)
