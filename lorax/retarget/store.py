"""Transferred adapters on disk: a standard LoRA under its content key, with one line on how it was made."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lorax.errors import FileError
from lorax.hosts.base import Carried
from lorax.safefile import open_tensors

KEY = "lorax.carried"
"""Metadata entry with what `Carried` tells beside the tensors, as JSON."""


@dataclass(frozen=True)
class Store:
    """Files ``<digest>.safetensors``; the modification time is the time of last use."""

    folder: Path
    limit: int
    """Bytes; the least recently used go beyond it."""

    def path(self, digest: str) -> Path:
        return self.folder / f"{digest}.safetensors"

    def find(self, digest: str, name: str) -> Carried | None:
        """What was made before, called `name`; a damaged file is removed."""
        path = self.path(digest)
        if not path.is_file():
            return None
        try:
            with contextlib.closing(open_tensors(path)) as file:
                told = json.loads(file.metadata[KEY])
            os.utime(path)
            return Carried(name, path, digest, told["adapter_hash"], told["summary"], told["verdict"], told["note"])
        except (FileError, OSError, KeyError, ValueError, TypeError):
            with contextlib.suppress(OSError):
                path.unlink()
            return None

    def trim(self, keep: Path) -> None:
        """Remove the least recently used files beyond the limit, never `keep`."""
        entries = [(p, p.stat()) for p in self.folder.glob("*.safetensors")]
        excess = sum(s.st_size for _, s in entries) - self.limit
        for path, stat in sorted(entries, key=lambda e: e[1].st_mtime):
            if excess <= 0:
                return
            if path != keep:
                with contextlib.suppress(OSError):
                    path.unlink()
                    excess -= stat.st_size


def told(adapter_hash: str, summary: str, verdict: str, note: str) -> Mapping[str, str]:
    """The metadata that `Store.find` reads."""
    return {KEY: json.dumps({"adapter_hash": adapter_hash, "summary": summary, "verdict": verdict, "note": note})}
