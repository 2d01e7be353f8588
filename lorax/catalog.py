"""Known bases in folders: which file is the one that an adapter's metadata names.

Trust falls from sha256 over A1111's old hash to the file name; cost falls the same way. The old hash reads 64 KiB and two
fine-tunes can share it (their text encoders lie at that place), so it selects the files whose sha256 is worth computing.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from lorax.adapter import BaseHint
from lorax.digest import autov1_hash, sha256_file
from lorax.errors import FileError
from lorax.safefile import write_text

SUFFIXES = (".safetensors", ".ckpt")
_DROPPED_SUFFIXES = (*SUFFIXES, ".pt", ".pth", ".bin")
_INDEX_VERSION = 1

Evidence = Literal["sha256", "autov1", "name"]
Progress = Callable[[str, int, int], None]
"""``progress(text, bytes done, bytes in all)``"""


@dataclass(frozen=True)
class Match:
    """A base found for a hint, and how sure that is."""

    path: Path
    by: Evidence
    """What agreed. ``sha256`` is proof that it is the very file; ``name`` is a guess."""
    others: int = 0
    """How many more files agree in the same way."""
    contradicted: bool = False
    """The hint gives a hash, and it is not this file's: another version or precision of that name."""


@dataclass
class _Entry:
    """A checkpoint file or diffusers folder, with the hashes that are known of it."""

    path: Path
    name: str
    stamp: tuple[int, int] | None
    """(size, mtime in ns) of a file; None for a folder, which has no hashes."""
    sha256: str | None = None
    autov1: str | None = None


@dataclass
class Catalog:
    """The bases below some folders. Hashes are computed when they can decide, and kept in `index` where one is given."""

    entries: Sequence[_Entry]
    index: Path | None = None
    progress: Progress | None = field(default=None, repr=False)
    _learned: bool = False
    """Hashes were computed that the index does not have."""

    @classmethod
    def scan(cls, folders: Iterable[Path], index: Path | None = None, progress: Progress | None = None) -> Catalog:
        """List the checkpoints (.safetensors, .ckpt) and diffusers folders below `folders`; links are followed. No file is opened.

        index: a JSON file of hashes by path, size and time; a missing or damaged one is as good as empty.
        """
        known = _read_index(index) if index else {}
        entries: dict[Path, _Entry] = {}
        for path in (path for folder in folders for path in _bases(folder)):
            with contextlib.suppress(OSError):  # a file may vanish, a link may lead nowhere
                stat = path.stat()
                stamp = None if path.is_dir() else (stat.st_size, stat.st_mtime_ns)
                said = known.get(str(path), {}) if stamp else {}
                current = said if stamp and said.get("stamp") == list(stamp) else {}
                entries[path] = _Entry(path, plain_name(_name_of(path)), stamp, _text(current, "sha256"), _text(current, "autov1"))
        return cls(list(entries.values()), index, progress)

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(entry.path for entry in self.entries)

    def find(self, hint: BaseHint) -> Path | None:
        """The base that the hint means, by the best evidence there is; None where nothing agrees."""
        match = self.lookup(hint)
        return match.path if match else None

    def lookup(self, hint: BaseHint) -> Match | None:
        """As `find`, with the evidence. A file that cannot be read agrees with nothing."""
        try:
            return self._lookup(hint)
        finally:
            self._save()

    def _lookup(self, hint: BaseHint) -> Match | None:
        named = [entry for entry in self.entries if hint.name and entry.name == plain_name(hint.name)]
        files = sorted((entry for entry in self.entries if entry.stamp), key=lambda entry: entry not in named)
        marked = [entry for entry in files if self._autov1(entry) == hint.autov1.lower()] if hint.autov1 else files
        if hint.sha256:
            for entry in sorted(marked, key=lambda entry: entry.sha256 is None):
                if self._sha256(entry) == hint.sha256.lower():
                    return Match(entry.path, "sha256")
        elif hint.autov1 and marked:
            return Match(marked[0].path, "autov1", len(marked) - 1)
        if named:
            first = min(named, key=lambda entry: hint.autov1 is None or entry not in marked)
            hashed = bool(hint.sha256 or hint.autov1)
            return Match(first.path, "name", len(named) - 1, hashed and first.stamp is not None)
        return None

    def _autov1(self, entry: _Entry) -> str | None:
        if entry.autov1 is None:
            with contextlib.suppress(FileError):
                entry.autov1 = autov1_hash(entry.path)
                self._learned = True
        return entry.autov1

    def _sha256(self, entry: _Entry) -> str | None:
        if entry.sha256 is None:
            name, told = entry.path.name, self.progress
            progress = None if told is None else lambda done, size: told(f"hash of {name}", done, size)
            with contextlib.suppress(FileError):
                entry.sha256 = sha256_file(entry.path, progress)
                self._learned = True
        return entry.sha256

    def _save(self) -> None:
        """Keep the hashes. An index that cannot be written is no error: they are computed again."""
        if self.index is None or not self._learned:
            return
        files = _read_index(self.index)
        for entry in self.entries:
            if entry.stamp and (entry.sha256 or entry.autov1):
                files[str(entry.path)] = {"stamp": list(entry.stamp), "sha256": entry.sha256, "autov1": entry.autov1}
        with contextlib.suppress(FileError, OSError):
            self.index.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.index, json.dumps({"version": _INDEX_VERSION, "files": files}, indent=1, sort_keys=True), overwrite=True)


def plain_name(name: str) -> str:
    """A base's name for comparison: without folders, suffix and case. Metadata holds file names, whole paths and hub names."""
    last = name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1].strip()
    for suffix in _DROPPED_SUFFIXES:
        if last.lower().endswith(suffix):
            return last[: -len(suffix)].casefold()
    return last.casefold()


def _name_of(path: Path) -> str:
    """The name under which a base is known: in the hub's cache, the repository's."""
    if path.parent.name == "snapshots" and path.parent.parent.name.startswith("models--"):
        return path.parent.parent.name.removeprefix("models--").replace("--", "/")
    return path.name


def _bases(folder: Path) -> Iterator[Path]:
    """Checkpoint files and diffusers folders below `folder`, in a fixed order; the insides of diffusers folders are no bases."""
    seen: set[str] = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        if "unet" in folders:
            folders.clear()
            yield Path(here)
        yield from (Path(here, name) for name in sorted(files) if name.lower().endswith(SUFFIXES))


def _read_index(index: Path) -> dict[str, dict[str, Any]]:
    try:
        content: Any = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    entries = cast("dict[str, Any]", content)
    files = entries.get("files")
    if entries.get("version") != _INDEX_VERSION or not isinstance(files, dict):
        return {}
    return {path: said for path, said in cast("dict[str, Any]", files).items() if isinstance(said, dict)}


def _text(said: Mapping[str, Any], key: str) -> str | None:
    value = said.get(key)
    return value if isinstance(value, str) else None
