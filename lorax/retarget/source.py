"""Which checkpoint an adapter was trained on: what the prompt, a sidecar, the file or the settings say, among those at hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from lorax.adapter import Adapter
from lorax.errors import FileError, SourceNeeded, nearest
from lorax.fileindex import FileIndex
from lorax.hosts.base import KnownBase, RetargetOptions, Wish

SIDECAR_KEY = "lorax source"
"""In the JSON file beside an adapter (the WebUI's own user metadata): the name of the source checkpoint."""


@dataclass(frozen=True)
class Found:
    """The source, or the reason why there is none."""

    base: KnownBase | None
    reason: str


def find_source(adapter: Adapter, wish: Wish, options: RetargetOptions, bases: Sequence[KnownBase], index: FileIndex) -> Found:
    """The first that says something decides: prompt, sidecar, the file's hashes, the file's name for it, the settings.

    Raises SourceNeeded where the prompt, the sidecar or a setting names a checkpoint that is not there.
    """
    for said, where in (
        (wish.source, "source="),
        (_sidecar(adapter.path), f"'{SIDECAR_KEY}' in the file beside the adapter"),
    ):
        if said:
            return Found(_named(said, where, bases), f"{where} says so")
    hint = adapter.base
    if found := _by_hash(hint.sha256, hint.autov1, bases, index):
        return Found(found, "its hash is in the adapter's file")
    if hint.name and (found := by_name(_stem(hint.name), bases)):
        return Found(found, "its name is in the adapter's file")
    if default := dict(options.sources).get(adapter.family):
        return Found(_named(default, "the setting 'source checkpoints'", bases), "the settings say so")
    told = f"trained on {hint}, which is not among the checkpoints" if str(hint) != "an unnamed base" else "does not say its base"
    return Found(None, told)


def by_name(name: str, bases: Sequence[KnownBase]) -> KnownBase | None:
    """The checkpoint of this name, with or without folder and suffix."""
    wanted = name.strip().lower()
    for spelled in (lambda b: (b.name, *b.names), lambda b: tuple(_stem(n) for n in b.names)):
        for base in bases:
            if wanted in (n.lower() for n in spelled(base)):
                return base
    return None


def _named(name: str, where: str, bases: Sequence[KnownBase]) -> KnownBase:
    found = by_name(name, bases) or by_name(_stem(name), bases)
    if found is None:
        raise SourceNeeded(f"{where} names the checkpoint '{name}', which is not here.{nearest(name, (b.name for b in bases))}")
    return found


def _by_hash(sha256: str | None, autov1: str | None, bases: Sequence[KnownBase], index: FileIndex) -> KnownBase | None:
    if sha256:
        for base in bases:
            if sha256.lower() == (base.sha256 or index.known(base.path)):
                return base
    if autov1:
        for base in bases:
            try:
                if index.autov1(base.path) == autov1.lower():
                    return base
            except FileError:
                continue
    return None


def _stem(name: str) -> str:
    """``C:\\models\\a.safetensors`` → ``a``: names in files come from every system."""
    last = PureWindowsPath(name.strip()).name
    return last.rsplit(".", 1)[0] if last.lower().endswith((".safetensors", ".ckpt", ".pt")) else last


def _sidecar(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        notes = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    said = notes.get(SIDECAR_KEY) if isinstance(notes, dict) else None
    return said if isinstance(said, str) and said else None
