"""Known bases in folders: which file is the one that an adapter's metadata names.

Trust falls from sha256 over A1111's old hash to the file name; cost falls the same way. The old hash reads 64 KiB and two
fine-tunes can share it (their text encoders lie at that place), so it selects the files whose sha256 is worth computing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lorax.adapter import BaseHint
from lorax.errors import FileError
from lorax.fileindex import FileIndex, Progress

SUFFIXES = (".safetensors", ".ckpt")
_DROPPED_SUFFIXES = (*SUFFIXES, ".pt", ".pth", ".bin")

Evidence = Literal["sha256", "autov1", "name"]


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


@dataclass(frozen=True)
class _Entry:
    """A checkpoint file, or a diffusers folder, which has no hashes."""

    path: Path
    name: str
    is_file: bool


@dataclass(frozen=True)
class Catalog:
    """The bases below some folders. Hashes are computed when they can decide."""

    entries: Sequence[_Entry]
    index: FileIndex = field(default_factory=FileIndex)
    progress: Progress | None = field(default=None, repr=False)

    @classmethod
    def scan(cls, folders: Iterable[Path], index: Path | None = None, progress: Progress | None = None) -> Catalog:
        """List the checkpoints (.safetensors, .ckpt) and diffusers folders below `folders`; links are followed. No file is opened.

        index: a file to keep hashes in (`FileIndex`).
        """
        paths = dict.fromkeys(path for folder in folders for path in _bases(folder) if path.exists())  # a link may lead nowhere
        return cls([_Entry(path, plain_name(_name_of(path)), path.is_file()) for path in paths], FileIndex(index), progress)

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(entry.path for entry in self.entries)

    def find(self, hint: BaseHint) -> Path | None:
        """The base that the hint means, by the best evidence there is; None where nothing agrees."""
        match = self.lookup(hint)
        return match.path if match else None

    def lookup(self, hint: BaseHint) -> Match | None:
        """As `find`, with the evidence. A file that cannot be read agrees with nothing."""
        named = [entry for entry in self.entries if hint.name and entry.name == plain_name(hint.name)]
        files = sorted((entry for entry in self.entries if entry.is_file), key=lambda entry: entry not in named)
        marked = [entry for entry in files if self._autov1(entry) == hint.autov1.lower()] if hint.autov1 else files
        if hint.sha256:
            for entry in sorted(marked, key=lambda entry: self.index.known(entry.path) is None):
                if self._sha256(entry) == hint.sha256.lower():
                    return Match(entry.path, "sha256")
        elif hint.autov1 and marked:
            return Match(marked[0].path, "autov1", len(marked) - 1)
        if named:
            first = min(named, key=lambda entry: hint.autov1 is None or entry not in marked)
            hashed = bool(hint.sha256 or hint.autov1)
            return Match(first.path, "name", len(named) - 1, hashed and first.is_file)
        return None

    def _autov1(self, entry: _Entry) -> str | None:
        with contextlib.suppress(FileError):
            return self.index.autov1(entry.path)
        return None

    def _sha256(self, entry: _Entry) -> str | None:
        with contextlib.suppress(FileError):
            return self.index.sha256(entry.path, self.progress)
        return None


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
