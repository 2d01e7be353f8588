"""A folder of tensors by content: what was computed from a weight once is read back the next time.

The key holds all that the entry depends on, so an entry never goes stale. Entries appear whole or not at all, several
processes may share the folder, a damaged entry is dropped and computed again, and the least recently used go first.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from lorax.errors import FileError
from lorax.safefile import open_tensors, write_safetensors

DEFAULT_LIMIT = 4 << 30
"""Bytes"""
SUFFIX = ".safetensors"


def default_folder() -> Path:
    """``$LORAX_CACHE``, or the user's cache folder of this system."""
    if chosen := os.environ.get("LORAX_CACHE"):
        return Path(chosen)
    local = os.environ.get("LOCALAPPDATA") if os.name == "nt" else os.environ.get("XDG_CACHE_HOME")
    return Path(local or Path.home() / ".cache") / "lorax"


@dataclass(frozen=True)
class Cache:
    """Entries are files ``<key>.safetensors``; the modification time is the time of last use."""

    folder: Path
    limit: int = DEFAULT_LIMIT
    """Largest total size in bytes; older entries are removed beyond it."""

    def get_or_compute(self, key: str, compute: Callable[[], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
        """The entry of `key` ([0-9a-z-]+), computed and stored where it is missing. A cache that cannot be written is no error."""
        found = self._read(key)
        if found is not None:
            return found
        tensors = {name: t.contiguous() for name, t in compute().items()}
        with contextlib.suppress(FileError, OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_safetensors(self._path(key), tensors, {}, overwrite=True)
            self._trim()
        return tensors

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{SUFFIX}"

    def _read(self, key: str) -> dict[str, Tensor] | None:
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            file = open_tensors(path)
            try:
                tensors = {name: file.read(name).clone() for name in file.tensors}
            finally:
                file.close()
            os.utime(path)
        except (FileError, OSError):
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        return tensors

    def _trim(self) -> None:
        entries = [(p, p.stat()) for p in self.folder.glob(f"*{SUFFIX}")]
        excess = sum(s.st_size for _, s in entries) - self.limit
        for path, stat in sorted(entries, key=lambda e: e[1].st_mtime):
            if excess <= 0:
                return
            with contextlib.suppress(OSError):
                path.unlink()
                excess -= stat.st_size
