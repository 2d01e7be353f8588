"""What tells one piece of work from another: before a file is read, and by content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lorax.bases import VERSION as SPANS_VERSION
from lorax.fileindex import stamp
from lorax.hosts.base import KnownBase, RetargetOptions, Wish
from lorax.retarget.work import Job
from lorax.version import VERSION

ALGORITHM = "2"
"""Of what a transferred file holds: raise it when the same inputs give other tensors."""


def quick_key(path: Path, wish: Wish, base: KnownBase, options: RetargetOptions, bases: Sequence[KnownBase]) -> tuple[object, ...]:
    """What decides about the result, without reading a file: equal keys are the same work."""
    sidecar = path.with_suffix(".json")
    beside = stamp(sidecar) if sidecar.is_file() else None
    asked = wish.method, wish.k, wish.source
    target = tuple(stamp(p) for p in (base.path, *base.beside))
    return stamp(path), beside, asked, target, base.sha256, options, tuple((b.path, b.sha256) for b in bases)


def job_digest(job: Job, adapter_sha256: str) -> str:
    """Content key of a job's result. GPU and CPU differ in rounding and are kept apart."""
    settings = asdict(job.settings) | {"device": job.settings.device.partition(":")[0]}
    versions = VERSION, ALGORITHM, SPANS_VERSION
    content = {
        "versions": versions,
        "adapter": adapter_sha256,
        "target": job.target_sha256,
        "source": job.source_sha256,
        "settings": settings,
    } | ({"beside": job.beside_sha256} if job.beside_sha256 else {})
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
