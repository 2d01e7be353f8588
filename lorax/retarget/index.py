"""sha256 of files that were seen before, by path, size and time of change."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path
from typing import Any

from lorax.digest import sha256_file
from lorax.errors import FileError, one_line
from lorax.safefile import write_text
from lorax.transfer.types import Progress, no_progress

Stamp = tuple[str, int, int]
"""(path, size, mtime in ns): what tells that a file is the one that was seen."""


def stamp(path: Path) -> Stamp:
    """Raises FileError where the file is not there."""
    try:
        stat = path.stat()
    except OSError as e:
        raise FileError(one_line(f"'{path}' cannot be read: {e.strerror or e}.")) from None
    return str(path), stat.st_size, stat.st_mtime_ns


class FileIndex:
    """A JSON file of digests; one that cannot be read or written costs time, nothing else."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known: dict[Stamp, str] = {(p, size, time): digest for p, size, time, digest in _rows(path)}

    def known(self, path: Path) -> str | None:
        """The sha256, if it needs no reading."""
        with contextlib.suppress(FileError):
            return self._known.get(stamp(path))
        return None

    def sha256(self, path: Path, progress: Progress = no_progress) -> str:
        """The sha256, read from the file where it is not known. Raises FileError."""
        mark = stamp(path)
        digest = self._known.get(mark)
        if digest is None:
            megabytes = max(1, mark[1] >> 20)
            digest = sha256_file(path, lambda done, _: progress(f"reading {path.name}", done >> 20, megabytes))
            with self._lock:
                self._known = {m: d for m, d in self._known.items() if m[0] != mark[0]} | {mark: digest}
                self._save()
        return digest

    def _save(self) -> None:
        rows = [[*mark, digest] for mark, digest in sorted(self._known.items())]
        with contextlib.suppress(FileError, OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._path, json.dumps(rows, indent=0), overwrite=True)


def _rows(path: Path) -> list[tuple[str, int, int, str]]:
    try:
        rows: Any = json.loads(path.read_text(encoding="utf-8"))
        return [(str(p), int(size), int(time), str(digest)) for p, size, time, digest in rows]
    except (OSError, ValueError, TypeError):
        return []
