"""``cache``: what is kept between runs, its size, its removal, and whether it is sound."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from converter.console import Bars, rows, show, show_json
from lorax import cache_sizes, clear_cache, default_folder, verify_cache

DAMAGED = 1


def run(arguments: Namespace) -> int:
    """The command."""
    folder: Path = arguments.folder or default_folder()
    return {"list": _list, "size": _size, "clear": _clear, "verify": _verify}[arguments.what](arguments, folder)


def _list(arguments: Namespace, folder: Path) -> int:
    parts = cache_sizes(folder)
    if arguments.json:
        show_json({"folder": str(folder), "parts": [asdict(part) for part in parts]})
        return 0
    head = ("kept", "what", "files", "size", "last used")
    body: list[tuple[str, ...]] = [
        (p.name, p.title, str(p.files), size_text(p.nbytes), "–" if p.last_used is None else _date(p.last_used)) for p in parts
    ]
    show(f"{folder}\n{rows(head, body)}")
    return 0


def _size(arguments: Namespace, folder: Path) -> int:
    total = sum(part.nbytes for part in cache_sizes(folder))
    if arguments.json:
        show_json({"folder": str(folder), "bytes": total})
    else:
        show(f"{folder}: {size_text(total)}")
    return 0


def _clear(arguments: Namespace, folder: Path) -> int:
    count, freed = clear_cache(folder, arguments.parts) if arguments.parts else clear_cache(folder)
    if arguments.json:
        show_json({"folder": str(folder), "files": count, "bytes": freed})
    else:
        show(f"{folder}: {count} files removed, {size_text(freed)}")
    return 0


def _verify(arguments: Namespace, folder: Path) -> int:
    with Bars() as progress:
        damaged = verify_cache(folder, progress)
    if arguments.json:
        found: list[dict[str, Any]] = [{"file": str(path), "reason": reason} for path, reason in damaged]
        show_json({"folder": str(folder), "damaged": found})
    else:
        outcome = f"{len(damaged)} damaged files, removed" if damaged else "sound"
        show("\n".join([f"{folder}: {outcome}", *(reason for _, reason in damaged)]))
    return DAMAGED if damaged else 0


def size_text(nbytes: int) -> str:
    """Bytes for people."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if nbytes >= size:
            return f"{nbytes / size:.1f} {unit}"
    return f"{nbytes} B"


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
