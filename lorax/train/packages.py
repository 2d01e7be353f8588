"""The packages of the extra ``[train]``, imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from lorax.errors import MissingPackage

EXTRA = ("diffusers", "transformers", "accelerate", "PIL", "tqdm")


def load_package(name: str) -> Any:
    """The package `name`; MissingPackage says how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingPackage(f"training needs {error.name or name}: pip install 'lorax-webui[train]'") from error


def require_packages() -> None:
    """All of them at once, before anything else is done."""
    for name in EXTRA:
        load_package(name)
