"""A folder of tensors by content: what was computed from a weight once is read back the next time.

The key holds all that the entry depends on, so an entry never goes stale. Entries appear whole or not at all, whatever kills
the process; each carries a checksum, and a damaged one is dropped and computed again; several processes may share the folder,
and do not do the work of one entry twice; the least recently used go first.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from lorax.cachelock import claimed
from lorax.digest import tensor_digest
from lorax.errors import FileError
from lorax.safefile import open_tensors, write_safetensors

DEFAULT_LIMIT = 4 << 30
"""Bytes"""
SUFFIX = ".safetensors"
CHECKSUM = "lorax.checksum"
"""Metadata entry of each file."""
ABANDONED = 3600
"""Seconds after which a temporary file is what a killed process left."""
RECOUNT = 64
"""The folder is counted anew after so many entries, for others write there too."""


def default_folder() -> Path:
    """``$LORAX_CACHE``, or the user's cache folder of this system."""
    if chosen := os.environ.get("LORAX_CACHE"):
        return Path(chosen)
    local = os.environ.get("LOCALAPPDATA") if os.name == "nt" else os.environ.get("XDG_CACHE_HOME")
    return Path(local or Path.home() / ".cache") / "lorax"


@dataclass
class _Count:
    """What this process knows of the folder's size."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    nbytes: int = 0
    until: int = 0
    """Entries to write before the folder is counted anew."""


@dataclass(frozen=True)
class Cache:
    """Entries are files ``<key>.safetensors``; the modification time is the time of last use."""

    folder: Path
    limit: int = DEFAULT_LIMIT
    """Largest total size in bytes; older entries are removed beyond it."""
    _count: _Count = field(default_factory=_Count, repr=False, compare=False)

    def get(self, key: str) -> Mapping[str, Tensor] | None:
        """The entry of `key` ([0-9a-z-]+), None where it is missing; a damaged one is removed."""
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            tensors = read_entry(path)
            os.utime(path)
        except (FileError, OSError):
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        return tensors

    def has(self, key: str) -> bool:
        """Whether there is an entry of `key`; it may prove damaged."""
        return self._path(key).is_file()

    def get_or_compute(self, key: str, compute: Callable[[], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
        """The entry of `key`, computed and stored where it is missing. A cache that cannot be written is no error.

        While another process computes it, this one waits.
        """
        return self.get_or_compute_all([key], lambda _: [compute()])[0]

    def get_or_compute_all(
        self, keys: Sequence[str], compute: Callable[[Sequence[int]], Sequence[Mapping[str, Tensor]]]
    ) -> list[Mapping[str, Tensor]]:
        """`get_or_compute` of several keys, with what is missing computed at once. compute: is given positions in `keys`."""
        found = {key: self.get(key) for key in keys}
        with ExitStack() as claims:
            for key in sorted(key for key, entry in found.items() if entry is None):  # one order for all, or two could wait for each other
                if claims.enter_context(claimed(self._path(key).with_suffix(".lock"))):
                    found[key] = self.get(key)
            missing = [i for i, key in enumerate(keys) if found[key] is None and key not in keys[:i]]
            for i, tensors in zip(missing, compute(missing) if missing else (), strict=True):
                entry = {name: t.contiguous() for name, t in tensors.items()}
                self._write(keys[i], entry)
                found[keys[i]] = entry
        return [entry for key in keys if (entry := found[key]) is not None]

    def entries(self) -> list[Path]:
        """The files, the least recently used first."""
        return [path for _, _, path in sorted(self._listed())]

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{SUFFIX}"

    def _write(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        with contextlib.suppress(FileError, OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_safetensors(self._path(key), tensors, {CHECKSUM: checksum(tensors)}, overwrite=True)
            self._trim(sum(t.nbytes for t in tensors.values()))

    def _trim(self, written: int) -> None:
        count = self._count
        with count.lock:
            count.nbytes, count.until = count.nbytes + written, count.until - 1
            if count.nbytes <= self.limit and count.until > 0:
                return
            self._drop_abandoned()
            listed = sorted(self._listed())
            count.nbytes, count.until = sum(size for _, size, _ in listed), RECOUNT
            for _, size, path in listed:
                if count.nbytes <= self.limit:
                    return
                with contextlib.suppress(OSError):
                    path.unlink()
                    count.nbytes -= size

    def _listed(self) -> Iterator[tuple[float, int, Path]]:
        """(time of last use, bytes, file)"""
        for path in self.folder.glob(f"*{SUFFIX}"):
            with contextlib.suppress(OSError):  # another process may remove it meanwhile
                stat = path.stat()
                yield stat.st_mtime, stat.st_size, path

    def _drop_abandoned(self) -> None:
        for path in self.folder.glob(".lorax-*.tmp"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < time.time() - ABANDONED:
                    path.unlink()


def read_entry(path: Path) -> dict[str, Tensor]:
    """The tensors of an entry. Raises FileError where it is not what was written."""
    with contextlib.closing(open_tensors(path)) as file:
        tensors = {name: file.read(name) for name in file.tensors}
        if file.metadata.get(CHECKSUM) != checksum(tensors):
            raise FileError(f"'{path}' is damaged: its content does not have the checksum that was written; remove it")
    return tensors


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """Of names and content, as 64 hex digits."""
    text = "".join(f"{name} {tensor_digest(tensors[name])}\n" for name in sorted(tensors))
    return hashlib.sha256(text.encode()).hexdigest()
