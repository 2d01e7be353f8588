"""What the panels work with: adapters and bases by name, and the folders that results go to.

A name is only ever looked up among the files that were found, and results go to folders chosen by name, so nothing that
a page sends reaches the file system as a path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lorax.errors import LoraxError, nearest
from lorax.hosts.base import Host, KnownBase
from lorax.library import Entry

_T = TypeVar("_T")


@dataclass(frozen=True)
class Workplace:
    """A host, as the panels see it."""

    host: Host
    outputs: Callable[[], Sequence[Path]]
    """Folders that results may go to; the first is the usual one."""
    checkpoints: Callable[[], Sequence[Path]]
    """Folders in which the base of an adapter is looked for."""
    list_again: Callable[[], None]
    """Look at the folders again, so that new files are known everywhere."""

    @property
    def title(self) -> str:
        return self.host.title

    def adapters(self) -> dict[str, Entry]:
        """By the name that the panels show: the path below its folder, without suffix."""
        return {entry.subpath: entry for entry in self.host.service.entries()}

    def bases(self) -> dict[str, KnownBase]:
        """By the name that the panels show: the file's, with its folder where two are called the same."""
        found: dict[str, KnownBase] = {}
        for base in self.host.bases():
            name = base.path.name
            found[name if name not in found else f"{base.path.parent.name}/{name}"] = base
        return found

    def folders(self) -> dict[str, Path]:
        """By name: where results may go."""
        return {folder.name: folder for folder in self.outputs()}

    def adapter(self, name: str) -> Entry:
        return _found(name, self.adapters(), "adapter")

    def base(self, name: str) -> KnownBase:
        return _found(name, self.bases(), "checkpoint")

    def folder(self, name: str) -> Path:
        return _found(name, self.folders(), "folder")


def _found(name: str, known: dict[str, _T], what: str) -> _T:
    if not name:
        raise LoraxError(f"choose {'an' if what == 'adapter' else 'a'} {what} first")
    if name not in known:
        raise LoraxError(f"no {what} is called '{name}'.{nearest(name, known)}")
    return known[name]
