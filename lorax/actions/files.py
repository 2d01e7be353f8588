"""Where results go, and the checks that come before any work: nothing is overwritten, least of all an input."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lorax.errors import FileError, WouldOverwrite


def base_stem(spec: str) -> str:
    """A short name for a base as it was given: the stem of a file, the name of a folder, the first of several files."""
    path = Path(spec)
    if not path.exists() and "+" in spec:
        path = Path(spec.split("+")[0])
    return path.resolve().name if path.is_dir() else path.stem


def default_output(adapter: Path, target: str) -> Path:
    """``<adapter>-<target>.safetensors`` beside the adapter."""
    return adapter.with_name(f"{adapter.stem}-{base_stem(target)}.safetensors")


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
