"""Adapters by name, in folders: how a name in a prompt becomes a file.

Names resolve like the WebUIs' own: file name without suffix, alias (``ss_output_name``), path below the folder, or the first
12 digits of the file's ``sshs_model_hash``. A name is only ever looked up among the files that were found, so no path from a
prompt reaches the file system.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lorax.errors import FileError, UnknownFormat, nearest
from lorax.safefile import open_tensors

SUFFIXES = (".safetensors", ".pt", ".ckpt")


@dataclass(frozen=True)
class Entry:
    """One adapter file of a library."""

    name: str
    """File name without suffix."""
    path: Path
    subpath: str
    """Path below the library's folder, without suffix, with forward slashes."""
    alias: str
    """``ss_output_name``, or the name where the file has none."""
    shorthash: str
    """First 12 digits of ``sshs_model_hash``, or empty."""
    native: bool
    """A LoRA-X file."""
    metadata: Mapping[str, str] = field(repr=False)


@dataclass
class Library:
    """The adapters in `folders`, the first folder first; files are looked at again when they change."""

    folders: Sequence[Path]
    _known: dict[tuple[Path, int, int], Entry] = field(default_factory=dict[tuple[Path, int, int], Entry])
    _names: dict[str, Entry] = field(default_factory=dict[str, Entry])

    def refresh(self) -> None:
        """Look at the folders again."""
        entries = list(self._scan())
        self._names.clear()
        for spelled in (lambda e: e.shorthash, lambda e: e.alias, lambda e: e.name, lambda e: e.subpath):
            for entry in reversed(entries):
                if spelled(entry):
                    self._names[spelled(entry)] = entry

    def entries(self) -> tuple[Entry, ...]:
        """All adapters that were found and are still there, by subpath."""
        found = {e.path: e for e in self._names.values() if e.path.is_file()}
        return tuple(sorted(found.values(), key=lambda e: e.subpath.lower()))

    def find(self, name: str) -> Entry:
        """The adapter of this name; looks at the folders again where it is not known. UnknownFormat with the nearest name."""
        if name not in self._names or not self._names[name].path.is_file():
            self.refresh()
        if name not in self._names:
            raise UnknownFormat(f"no adapter is called '{name}'.{nearest(name, self._names)}")
        return self._names[name]

    def _scan(self) -> Iterator[Entry]:
        for folder in self.folders:
            for path in adapter_files(folder):
                stat = path.stat()
                key = path, stat.st_mtime_ns, stat.st_size
                if key not in self._known:
                    self._known[key] = read_entry(path, folder)
                yield self._known[key]


def adapter_files(folder: Path) -> Iterable[Path]:
    """Files below `folder` that may be adapters, in the order of their names."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()) if folder.is_dir() else ()


def read_entry(path: Path, folder: Path) -> Entry:
    """What the header of an adapter file says; a file that cannot be read is an entry too, and tells why when it is used."""
    metadata: Mapping[str, str] = {}
    if path.suffix.lower() == ".safetensors":
        try:
            file = open_tensors(path)
            metadata = dict(file.metadata)
            file.close()
        except FileError:
            pass
    return Entry(
        name=path.stem,
        path=path,
        subpath=path.relative_to(folder).with_suffix("").as_posix(),
        alias=metadata.get("ss_output_name") or path.stem,
        shorthash=metadata.get("sshs_model_hash", "")[:12],
        native="lorax.format_version" in metadata,
        metadata=metadata,
    )
