"""Digests of a checkpoint's weights that were read before, so that a switch reads nothing of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from pathlib import Path
from typing import Any, cast
from weakref import WeakKeyDictionary

from lorax.checkpoint import Checkpoint
from lorax.errors import FileError
from lorax.layers import Layer
from lorax.safefile import TensorFile, write_text


class TensorIndex:
    """A JSON file for each checkpoint file, by its path, size, time of change and header. Threads may share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, str]] = {}
        self._learned: set[str] = set()

    def get(self, base: Checkpoint, layer: Layer) -> str | None:
        """The digest of a layer's weight as `Checkpoint.read` gives it, if it is known."""
        mark = file_mark(base.file(layer.id.component))
        if mark is None:
            return None
        with self._lock:
            return self._of(mark).get(_entry(layer))

    def learn(self, base: Checkpoint, layer: Layer, digest: str) -> None:
        """Remember a digest; `save` writes it."""
        mark = file_mark(base.file(layer.id.component))
        if mark is not None:
            with self._lock:
                self._of(mark)[_entry(layer)] = digest
                self._learned.add(mark)

    def save(self) -> None:
        """Write what was learned. An index that cannot be written is no error: weights are read again."""
        with self._lock:
            for mark in self._learned:
                with contextlib.suppress(FileError, OSError):
                    self._folder.mkdir(parents=True, exist_ok=True)
                    both = _read(self._path(mark)) | self._known[mark]
                    write_text(self._path(mark), json.dumps(both, indent=0, sort_keys=True), overwrite=True)
            self._learned.clear()

    def _of(self, mark: str) -> dict[str, str]:
        if mark not in self._known:
            self._known[mark] = _read(self._path(mark))
        return self._known[mark]

    def _path(self, mark: str) -> Path:
        return self._folder / f"{mark}.json"


_marks: WeakKeyDictionary[TensorFile, str | None] = WeakKeyDictionary()


def file_mark(file: TensorFile) -> str | None:
    """Identity of a file that was not changed since; None where that cannot be told from one file.

    It is taken once of an open file: a header of thousands of entries is asked for with each of them.
    """
    if file not in _marks:
        _marks[file] = _file_mark(file)
    return _marks[file]


def _file_mark(file: TensorFile) -> str | None:
    try:
        stat = file.path.stat()
    except OSError:
        return None
    if file.path.suffix.lower() != ".safetensors" or not file.path.is_file():
        return None
    header = [[i.name, i.dtype, i.shape] for i in file.tensors.values()], dict(file.metadata)
    content = json.dumps([str(file.path.resolve()), stat.st_size, stat.st_mtime_ns, *header], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _entry(layer: Layer) -> str:
    return layer.tensor if layer.rows is None else f"{layer.tensor}[{layer.rows[0]}:{layer.rows[1]}]"


def _read(path: Path) -> dict[str, str]:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {name: digest for name, digest in cast("dict[str, Any]", content).items() if isinstance(digest, str)}
