"""The files that a run leaves: the LoRA-X file with its metadata, and a standard LoRA where one was asked for."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import torch

from lorax.adapter import Adapter, BaseHint
from lorax.archs import kohya_names
from lorax.bases import Bases
from lorax.checkpoint import Checkpoint
from lorax.export import export_adapter
from lorax.formats import output_metadata, read_adapter, write_adapter
from lorax.train.loop import Run
from lorax.train.settings import TrainSettings

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
_NOT_OURS = ("modelspec.merged_from", "lorax.source_adapter", "lorax.source_base", "lorax.target_base", "lorax.target_base_sha256")
"""What `output_metadata` says of an adapter that another was made from."""


def base_hint(base: Checkpoint) -> BaseHint:
    """How others find the base; a folder has no hash."""
    hashes = base.hashes()
    return BaseHint(base.paths[0].name, hashes.sha256 if hashes else None, hashes.autov1 if hashes else None)


def write_trained(run: Run, base: Checkpoint, path: Path, *, overwrite: bool) -> None:
    """The LoRA-X file of the run as it is now."""
    run.network.save(path, _metadata(run, base, path.stem), DTYPES[run.settings.dtype], overwrite=overwrite)


def write_export(settings: TrainSettings, base: Checkpoint, bases: Bases, out: Path) -> None:
    """The trained file as a standard LoRA; its fingerprints are checked on the way."""
    adapter = read_adapter(settings.output, base.arch)
    made = export_adapter(adapter, base, bases=bases)
    ranks = {layer: f.rank for layer, f in made.modules.items()}
    said = output_metadata(
        adapter, base.paths[0].name, base.hashes(), base.arch, out.stem, ranks, {}, action="export", prediction_type=base.prediction_type
    )
    write_adapter(
        out,
        made.modules,
        base.arch,
        shapes=made.shapes,
        dtype=DTYPES[settings.dtype],
        metadata=said,
        overwrite=settings.overwrite or settings.resume,
    )


def _metadata(run: Run, base: Checkpoint, stem: str) -> dict[str, str]:
    settings, arch = run.settings, run.parts.arch
    names = kohya_names(arch)
    ranks = {names[name]: module.k for name, module in run.network.modules_by_name.items()}
    empty = Adapter(stem, None, "lorax", arch, {})
    told = {name: str(value) for name, value in settings.bound().items()}
    said = output_metadata(
        empty, base.paths[0].name, base.hashes(), base.arch, stem, ranks, told, action="train", prediction_type=base.prediction_type
    )
    captions = Counter(picture.caption for picture in run.material.pictures)
    ours = {
        "ss_network_module": "lorax.train",
        "ss_network_dim": str(settings.k),
        "ss_network_args": json.dumps({name: told[name] for name in ("kind", "target", "exclude")}),
        "ss_learning_rate": str(settings.learning_rate),
        "ss_steps": str(run.step),
        "ss_max_train_steps": str(settings.steps),
        "ss_seed": str(settings.seed),
        "ss_num_train_images": str(len(run.material.pictures)),
        "ss_batch_size_per_device": str(settings.batch_size),
        "ss_gradient_accumulation_steps": str(settings.accumulate),
        "ss_mixed_precision": settings.precision,
        "ss_tag_frequency": json.dumps({settings.pictures.name: dict(captions)}),
        "ss_training_comment": f"trained by LoRA-X on {base.paths[0].name}",
    }
    return {key: value for key, value in said.items() if key not in _NOT_OURS} | ours
