"""The cache folder as a whole: what lies in it, how large it is, whether it is sound, and away with it."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lorax.cache import read_entry
from lorax.errors import FileError
from lorax.safefile import open_tensors


@dataclass(frozen=True)
class Part:
    """One kind of content."""

    name: str
    title: str
    patterns: tuple[str, ...]
    """Relative to the cache folder."""
    check: Callable[[Path], None]
    """Raises FileError or ValueError for a damaged file."""

    def files(self, folder: Path) -> Iterator[tuple[Path, int, float]]:
        """(file, bytes, time of last use)"""
        for pattern in self.patterns:
            for path in folder.glob(pattern):
                with contextlib.suppress(OSError):  # another process may remove it meanwhile
                    stat = path.stat()
                    yield path, stat.st_size, stat.st_mtime


@dataclass(frozen=True)
class Size:
    """How much there is of one part."""

    name: str
    title: str
    files: int
    nbytes: int
    last_used: float | None
    """Seconds since the epoch."""


def check_transferred(path: Path) -> None:
    """The data behind the header has the hash that the header names (``sshs_model_hash``)."""
    with contextlib.closing(open_tensors(path)) as file:
        told = file.metadata.get("sshs_model_hash")
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        stream.seek(8 + int.from_bytes(stream.read(8), "little"))
        while block := stream.read(1 << 20):
            digest.update(block)
    if told != digest.hexdigest():
        raise FileError(f"'{path}' does not have the hash that it names")


def check_entry(path: Path) -> None:
    read_entry(path)


def check_json(path: Path) -> None:
    json.loads(path.read_text(encoding="utf-8"))


def check_leftover(path: Path) -> None:
    """Temporary files and claims belong to a running process, or to none: nothing is wrong with them."""


PARTS = (
    Part("bases", "singular vectors of bases", ("bases/*.safetensors", "basis*.safetensors", "span*.safetensors"), check_entry),
    Part("transferred", "transferred adapters", ("transferred/*.safetensors",), check_transferred),
    Part("relations", "what two bases have to do with each other", ("relations/*.json",), check_json),
    Part("index", "hashes of files and weights", ("tensors/*.json", "files.json", "catalog.json"), check_json),
    Part("leftovers", "of processes that run, or were killed", ("bases/.lorax-*", "bases/*.lock", "*/.lorax-*.tmp"), check_leftover),
)
"""`basis…` and `span…` in the folder itself are of earlier versions."""
NAMES = tuple(part.name for part in PARTS)


def sizes(folder: Path) -> list[Size]:
    """Every part, empty ones too."""
    found: list[Size] = []
    for part in PARTS:
        files = {path: (nbytes, used) for path, nbytes, used in part.files(folder)}
        last = max((used for _, used in files.values()), default=None)
        found.append(Size(part.name, part.title, len(files), sum(nbytes for nbytes, _ in files.values()), last))
    return found


def clear(folder: Path, names: Iterable[str] = NAMES) -> tuple[int, int]:
    """Remove the files of these parts: (files, bytes) that went. What is in use elsewhere may stay."""
    count = freed = 0
    for path, nbytes, _ in [file for part in PARTS if part.name in set(names) for file in part.files(folder)]:
        with contextlib.suppress(OSError):
            path.unlink()
            count, freed = count + 1, freed + nbytes
    return count, freed


def verify(folder: Path, progress: Callable[[str, int, int], None]) -> list[tuple[Path, str]]:
    """Read everything; damaged files are removed and named, each with what is wrong. They are made anew when they are wanted."""
    files = [(part, path) for part in PARTS for path, _, _ in part.files(folder)]
    damaged: list[tuple[Path, str]] = []
    for done, (part, path) in enumerate(files):
        progress("checking the cache", done, len(files))
        try:
            part.check(path)
        except FileNotFoundError:
            continue
        except (FileError, OSError, ValueError) as error:
            damaged.append((path, str(error)))
            with contextlib.suppress(OSError):
                path.unlink()
    return damaged
