"""Text encoders from other files than the checkpoint's, as the user chose them beside it ("VAE / Text Encoder")."""

# pyright: reportMissingImports=false

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lorax.errors import FileError
from lorax.safefile import open_tensors

_LAYERS = ("text_model.encoder.layers.0.", "resblocks.0.", "encoder.layers.0.")
"""In the tensor names of every text encoder that our families have, in any layout."""
_loaded: weakref.WeakKeyDictionary[Any, tuple[Path, ...]] = weakref.WeakKeyDictionary()


def remember(model: Any) -> None:
    """Called when a model is loaded: what is chosen then is in it; by its hires pass something else may be chosen."""
    _loaded[model] = chosen()


def chosen() -> tuple[Path, ...]:
    """The files that the next load takes besides the checkpoint; none on hosts without such a choice."""
    from modules import sd_models

    parameters: dict[str, Any] = getattr(sd_models.model_data, "forge_loading_parameters", {})
    return tuple(Path(str(p)) for p in parameters.get("additional_modules") or ())


def beside(model: Any | None, checkpoint: Path) -> tuple[Path, ...]:
    """The files with the model's text encoders, where the checkpoint's own file has none."""
    files = _of(model)
    return files if files and not _has_text_encoder(checkpoint) else ()


def replaced(model: Any, checkpoint: Path) -> str:
    """One line where other text encoders stand in for the checkpoint's own, else empty."""
    files = _of(model)
    if not files or not _has_text_encoder(checkpoint):
        return ""
    names = ", ".join(p.name for p in files)
    return f"the text encoder comes from {names}, and the text-encoder part of adapters is made for {checkpoint.name}'s own"


def _of(model: Any | None) -> tuple[Path, ...]:
    files = _loaded.get(model) if model is not None else None
    return with_text_encoders(chosen() if files is None else files)


def with_text_encoders(files: Iterable[Path]) -> tuple[Path, ...]:
    """Those that hold one; a VAE holds none."""
    return tuple(p for p in files if _has_text_encoder(p))


def _has_text_encoder(path: Path) -> bool:
    try:
        stat = path.stat()
    except OSError:
        return False
    return _looked_into(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _looked_into(path: Path, _size: int, _time: int) -> bool:
    try:
        with contextlib.closing(open_tensors(path)) as file:
            return any(layer in name for name in file.tensors for layer in _LAYERS)
    except FileError:
        return False
