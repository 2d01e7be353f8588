"""Where results go, and the checks that come before any work: nothing is overwritten, least of all an input."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lorax import FileError, LoraxError, WouldOverwrite, write_text


def base_stem(spec: str) -> str:
    """A short name for a base as it was given: the stem of a file, the name of a folder, the first of several files."""
    path = Path(spec)
    if not path.exists() and "+" in spec:
        path = Path(spec.split("+")[0])
    return path.resolve().name if path.is_dir() else path.stem


def default_output(adapter: Path, target: str) -> Path:
    """``<adapter>-<target>.safetensors`` beside the adapter."""
    return adapter.with_name(f"{adapter.stem}-{base_stem(target)}.safetensors")


def chosen_output(wanted: Path | None, default: Path) -> Path:
    """The output asked for; in a folder, under the default name. Its suffix has to be ``.safetensors``."""
    if wanted is None:
        return default
    if wanted.is_dir():
        return wanted / default.name
    if wanted.suffix.lower() != ".safetensors":
        raise FileError(f"'{wanted}' would be read as another format by some programs: the output has to end in .safetensors")
    return wanted


def check_output(output: Path, inputs: Iterable[Path], force: bool) -> None:
    """Raise before any work where `output` is an input, exists without `force`, or has no folder to lie in."""
    for path in inputs:
        if same_file(output, path):
            raise WouldOverwrite(f"the output '{output}' is an input: choose another name with -o")
    if output.is_dir():
        raise FileError(f"the output '{output}' is a folder")
    if output.exists() and not force:
        raise WouldOverwrite(f"'{output}' exists: choose another name, or overwrite it with --force")
    if not output.parent.is_dir():
        raise FileError(f"the folder '{output.parent}' does not exist: create it, or choose another output")


def same_file(a: Path, b: Path) -> bool:
    """One file under two names: links, relative paths, letters' case on Windows."""
    try:
        return a.samefile(b)
    except OSError:
        return a.resolve() == b.resolve()


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
