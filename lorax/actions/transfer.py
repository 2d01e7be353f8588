"""One plan carried out into a file, with its metadata and the files beside it."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from lorax.adapter import Adapter
from lorax.bases import Bases, default_bases
from lorax.cache import default_folder
from lorax.checkpoint import BaseHashes, Checkpoint
from lorax.fileindex import FileIndex
from lorax.formats import copy_sidecars, output_metadata, write_adapter
from lorax.transfer.run import run_plan
from lorax.transfer.types import Progress, TransferPlan, TransferReport, TransferSettings, no_progress

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class Written:
    """How the output is written."""

    path: Path
    format: Literal["kohya", "peft"] = "kohya"
    dtype: str = "fp16"
    overwrite: bool = False


def carry_out(
    plan: TransferPlan,
    adapter: Adapter,
    source: Checkpoint | None,
    target: Checkpoint,
    written: Written,
    bases: Bases | None = None,
    progress: Progress = no_progress,
) -> TransferReport:
    """Run the plan and write the adapter with its metadata and sidecars; the report says where it is."""
    start = time.perf_counter()
    done = run_plan(plan, adapter, source, target, bases, progress, as_stored=True)
    metadata = output_metadata(
        adapter,
        target.name,
        known_hashes(target, progress),
        target.arch,
        written.path.stem,
        {layer: factors.rank for layer, factors in done.modules.items()},
        settings_record(plan.settings, written),
        source_name=source.name if source else None,
        prediction_type=target.prediction_type,
        summary=summary(done.report),
        adapter_sha256=known_sha256(adapter.path, progress),
    )
    write_adapter(
        written.path,
        done.modules,
        target.arch,
        shapes=done.shapes,
        format=written.format,
        dtype=DTYPES[written.dtype],
        metadata=metadata,
        overwrite=written.overwrite,
    )
    if adapter.path is not None:
        copy_sidecars(adapter.path, written.path, overwrite=written.overwrite)
    return replace(done.report, output=str(written.path), seconds=time.perf_counter() - start, extra=provenance(metadata))


def settings_record(settings: TransferSettings, written: Written) -> dict[str, str]:
    """The settings that decide what is in the file, as strings; where and how fast it was made does not."""
    values = {**asdict(settings), "format": written.format, "dtype": written.dtype}
    for name in ("force", "device"):
        del values[name]
    values["components"] = None if settings.components is None else ",".join(str(c) for c in settings.components)
    values["only"], values["skip"] = ",".join(settings.only), ",".join(settings.skip)
    return {name: str(value) for name, value in values.items() if value not in (None, "")}


def summary(report: TransferReport) -> dict[str, str]:
    """What the file itself says about its making."""
    plan, kept = report.plan, report.energy_kept
    return {
        "method": plan.method,
        "verdict": plan.verdict,
        "modules_in": str(report.modules_in),
        "modules_out": str(report.modules_out),
        "energy_kept": "" if kept is None else f"{kept:.4f}",
    }


def provenance(metadata: dict[str, str]) -> dict[str, str]:
    """The lines of a report that say what the file was made from."""
    names = {
        "adapter sha256": "lorax.source_adapter_sha256",
        "target sha256": "ss_new_sd_model_hash",
        "made by": "lorax.version",
    }
    found = {title: metadata[key] for title, key in names.items() if metadata.get(key)}
    return {title: f"LoRA-X {value}" if title == "made by" else value for title, value in found.items()}


def known_hashes(base: Checkpoint, progress: Progress = no_progress) -> BaseHashes | None:
    """`Checkpoint.hashes`, without reading a file that was read before."""
    if len(base.paths) != 1 or not base.paths[0].is_file():
        return None
    index = known_files()
    return BaseHashes(index.sha256(base.paths[0], progress), index.autov1(base.paths[0]))


def known_sha256(path: Path | None, progress: Progress = no_progress) -> str | None:
    """The sha256 of an adapter's file, without reading one that was read before."""
    return known_files().sha256(path, progress) if path is not None and path.is_file() else None


def known_files() -> FileIndex:
    """The hashes of files that were seen before."""
    return FileIndex(default_folder() / "files.json")


def cached_bases() -> Bases:
    """Singular vectors of bases, kept in the user's cache folder (``$LORAX_CACHE``) for the next time."""
    return default_bases()
