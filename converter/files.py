"""What the command line asks of its arguments before any work, and how it writes reports."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lorax import FileError, LoraxError, write_text


def chosen_output(wanted: Path | None, default: Path) -> Path:
    """The output asked for; in a folder, under the default name. Its suffix has to be ``.safetensors``."""
    if wanted is None:
        return default
    if wanted.is_dir():
        return wanted / default.name
    if wanted.suffix.lower() != ".safetensors":
        raise FileError(f"'{wanted}' would be read as another format by some programs: the output has to end in .safetensors")
    return wanted


def input_paths(*specs: str | Path | None) -> list[Path]:
    """Every file that a list of inputs names: itself, the parts of ``unet+te1+te2``, and the weights in a folder."""
    found: list[Path] = []
    for spec in specs:
        if spec is None:
            continue
        path = Path(spec)
        parts = [path] if path.exists() or "+" not in str(spec) else [Path(part.strip()) for part in str(spec).split("+")]
        for part in parts:
            found += [part, *(part.rglob("*.safetensors") if part.is_dir() else ())]
    return found


def write_report(path: Path, forms: dict[str, Callable[[], str]], force: bool) -> None:
    """Write the report in the form that the suffix names; forms: by suffix, each made only when asked for."""
    write_text(path, forms[path.suffix.lower()](), overwrite=force)


def json_text(document: dict[str, Any]) -> str:
    """JSON for a file."""
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def require_files(paths: Iterable[Path]) -> None:
    """One clear error for an input that is not there."""
    for path in paths:
        if not path.exists():
            raise FileError(f"'{path}' does not exist")
        if path.is_dir():
            raise LoraxError(f"'{path}' is a folder, expected an adapter file")
