"""From what the user gives to open files: one file, a diffusers folder, or several joined by ``+``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from lorax.errors import FileError, UnknownFormat, nearest, one_line
from lorax.layers import Component
from lorax.safefile import TensorFile, open_sharded, open_tensors

FOLDERS = {Component.UNET: "unet", Component.TE1: "text_encoder", Component.TE2: "text_encoder_2"}
"""Sub-folders of a diffusers folder."""
_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")


@dataclass(frozen=True, eq=False)
class Source:
    """One open file (or sharded set) and what it is known to hold."""

    file: TensorFile
    component: Component | None = None
    """Set within a diffusers folder, whose sub-folders say it."""


def split_spec(spec: str | Path) -> list[Path]:
    """The paths in ``unet+te1+te2``. A path that exists is one path, whatever characters it has; so is each part.

    FileError where a part does not exist.
    """
    whole = Path(spec)
    if isinstance(spec, Path) or "+" not in spec or whole.exists():
        return [whole]
    paths: list[Path] = []
    start, pieces = 0, spec.split("+")
    for stop in range(1, len(pieces) + 1):
        path = Path("+".join(pieces[start:stop]).strip())
        if path.name and path.exists():
            paths.append(path)
            start = stop
    if start < len(pieces):
        rest = "+".join(pieces[start:])
        raise FileError(one_line(f"'{rest}' in '{spec}' does not exist; give files joined by '+', as in unet+te1+te2"))
    return paths


def open_sources(path: Path, stack: ExitStack) -> list[Source]:
    """Open a file, or the networks of a diffusers folder that take adapters; `stack` closes them."""
    if not path.is_dir():
        return [Source(stack.enter_context(open_tensors(path)))]
    if (path / "unet").is_dir():
        found = {component: path / name for component, name in FOLDERS.items() if (path / name).is_dir()}
        return [Source(stack.enter_context(open_folder(folder)), component) for component, folder in found.items()]
    names = _names(path)
    if not any(_is_weights(name) for name in names):
        inside = f"holds {', '.join(names[:5])}…" if names else "is empty"
        raise UnknownFormat(one_line(f"'{path}' {inside}; expected a file, or a diffusers folder with 'unet' in it"))
    return [Source(stack.enter_context(open_folder(path)))]


def scheduler_prediction(path: Path) -> str | None:
    """``prediction_type`` of a diffusers folder's scheduler, e.g. ``v_prediction``; None where it is not said."""
    config = path / "scheduler" / "scheduler_config.json"
    try:
        content: Any = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    value = cast("dict[str, Any]", content).get("prediction_type") if isinstance(content, dict) else None
    return value if isinstance(value, str) else None


def open_folder(folder: Path) -> TensorFile:
    """The weights of one network: safetensors before pickles, one file before shards, full precision before variants."""
    names = [name for name in _names(folder) if _is_weights(name)]
    if not names:
        raise FileError(one_line(f"'{folder}' has no weights (.safetensors or .bin); download them too"))
    name = min(names, key=_preference)
    if _is_shard(name):
        raise FileError(one_line(f"'{folder}' has shards such as '{name}' but no index.json; download it too.{nearest('index', names)}"))
    return open_sharded(folder / name) if name.endswith(".json") else open_tensors(folder / name)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(p.name for p in folder.iterdir())
    except OSError as e:
        raise FileError(one_line(f"'{folder}' cannot be read: {e.strerror or e}")) from None


def _is_weights(name: str) -> bool:
    return name.endswith((".safetensors", ".bin")) or (".index." in name and name.endswith(".json"))


def _is_shard(name: str) -> bool:
    return "-of-" in name and not name.endswith(".json")


def _preference(name: str) -> tuple[bool, bool, Sequence[int], str]:
    parts = name.split(".")
    variant = [p for p in parts[1:] if p not in ("safetensors", "bin", "index", "json")]
    stem = _STEMS.index(parts[0]) if parts[0] in _STEMS else len(_STEMS)
    return _is_shard(name), "safetensors" not in parts, (stem, len(variant), "index" in parts), name
