"""Hashes of files that were seen before, by path, size and time of change: a checkpoint is read once, not at every start."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lorax.digest import autov1_hash, sha256_file
from lorax.errors import FileError, one_line
from lorax.safefile import write_text

Stamp = tuple[str, int, int]
"""(path, size, mtime in ns): what tells that a file is the one that was seen."""
Progress = Callable[[str, int, int], None]
"""``progress(text, MiB done, MiB in all)``"""


def stamp(path: Path) -> Stamp:
    """Raises FileError where the file is not there."""
    try:
        stat = path.stat()
    except OSError as e:
        raise FileError(one_line(f"'{path}' cannot be read: {e.strerror or e}.")) from None
    return str(path), stat.st_size, stat.st_mtime_ns


class FileIndex:
    """Hashes, kept in a JSON file where one is given; one that cannot be read or written costs time, nothing else.

    Threads and processes may share the file: what others have learned is kept.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known = _read(path)

    def known(self, path: Path) -> str | None:
        """The sha256, if it needs no reading."""
        with contextlib.suppress(FileError):
            return self._known.get((stamp(path), "sha256"))
        return None

    def sha256(self, path: Path, progress: Progress | None = None) -> str:
        """The sha256, read from the file where it is not known. Raises FileError."""

        def tell(done: int, size: int) -> None:
            if progress is not None:
                progress(f"reading {path.name}", done >> 20, max(1, size >> 20))

        return self._get(path, "sha256", lambda: sha256_file(path, tell))

    def autov1(self, path: Path) -> str:
        """A1111's old hash. Raises FileError."""
        return self._get(path, "autov1", lambda: autov1_hash(path))

    def _get(self, path: Path, kind: str, compute: Callable[[], str]) -> str:
        mark = stamp(path)
        found = self._known.get((mark, kind))
        if found is None:
            found = compute()
            with self._lock:
                every = self._known | _read(self._path)
                kept = {key: digest for key, digest in every.items() if key[0] == mark or key[0][0] != mark[0]}
                self._known = kept | {(mark, kind): found}
                self._save()
        return found

    def _save(self) -> None:
        if self._path is None:
            return
        rows = [[*mark, kind, digest] for (mark, kind), digest in sorted(self._known.items())]
        with contextlib.suppress(FileError, OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._path, json.dumps(rows, indent=0), overwrite=True)


def _read(path: Path | None) -> dict[tuple[Stamp, str], str]:
    if path is None:
        return {}
    try:
        rows: Any = json.loads(path.read_text(encoding="utf-8"))
        return {((str(p), int(size), int(time)), str(kind)): str(digest) for p, size, time, kind, digest in rows}
    except (OSError, ValueError, TypeError, RecursionError):
        return {}
