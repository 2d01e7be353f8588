"""What lies beside an adapter file: the user's notes and the preview picture."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from lorax.errors import FileError, one_line

PICTURES: tuple[str, ...] = (".preview.png", ".png", ".preview.jpg", ".jpg", ".preview.jpeg", ".jpeg", ".preview.webp", ".webp")
"""In the order in which A1111 looks for them; only the first is shown."""


def copy_sidecars(source: Path, output: Path, *, overwrite: bool = False) -> tuple[Path, ...]:
    """Copy the ``.json`` of the user (A1111's notes, activation text, preferred weight) and the preview picture; returns the copies.

    A ``.json`` that is no JSON object belongs to another program and stays. ``.civitai.info`` stays too: it describes the
    source file by its hash. What exists beside the output is kept unless `overwrite`.
    """
    picture = next((ending for ending in PICTURES if _beside(source, ending).is_file()), None)
    endings = [e for e in (".json", picture) if e is not None]
    copied: list[Path] = []
    for ending in endings:
        old, new = _beside(source, ending), _beside(output, ending)
        if not old.is_file() or old.resolve() == new.resolve() or (new.exists() and not overwrite):
            continue
        if ending == ".json" and not _is_notes(old):
            continue
        try:
            shutil.copyfile(old, new)
        except OSError as e:
            raise FileError(one_line(f"'{new}' cannot be written: {e.strerror or e}.")) from None
        copied.append(new)
    return tuple(copied)


def _beside(path: Path, ending: str) -> Path:
    return path.parent / (path.stem + ending)


def _is_notes(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_text(encoding="utf-8")), dict)
    except (OSError, ValueError):
        return False
