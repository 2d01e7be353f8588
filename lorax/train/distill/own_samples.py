"""A base's own samples, remembered: they are the same for every adapter that is distilled between the same bases."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from lorax.cache import Cache, default_folder
from lorax.checkpoint import Checkpoint
from lorax.train.distill.denoiser import Denoiser, Texts
from lorax.train.distill.points import Tick, draw_samples
from lorax.train.distill.settings import DistillSettings

VERSION = "1"
"""Of how samples are drawn: raise it when that changes."""
LIMIT = 1 << 30
"""Bytes"""


def own_samples(
    base: Checkpoint,
    config: Path | None,
    denoiser: Denoiser,
    texts: Texts,
    prompts: Sequence[str],
    settings: DistillSettings,
    size: int,
    tick: Tick,
) -> Tensor:
    """`draw_samples` of a base without adapters, from the cache where they were drawn before."""
    told = [_stamps(base.paths), _stamps((config,) if config else ()), list(prompts), size, settings.samples, settings.seed]
    told += [settings.sampling_steps, settings.guidance, settings.batch_size, str(next(denoiser.parts.pipe.unet.parameters()).dtype)]
    digest = hashlib.blake2b(json.dumps(told).encode(), digest_size=16).hexdigest()
    cache = Cache(default_folder() / "samples", LIMIT)
    key = f"samples{VERSION}-{denoiser.device.type}-{digest}"
    return cache.get_or_compute(key, lambda: {"latents": draw_samples(denoiser, texts, prompts, settings, size, tick)})["latents"]


def _stamps(paths: Sequence[Path]) -> list[tuple[str, int, int]]:
    """(path, size, time of change) of every file: what tells that a base is the one that was seen."""
    files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else (path,)) if file.is_file()]
    return [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
