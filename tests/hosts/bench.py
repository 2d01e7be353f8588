"""What the contract asks of a WebUI, real or made up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Picture:
    """A picture and what was said with it."""

    pixels: str
    """Hash of the picture data alone."""
    infotext: str
    shape: tuple[int, int, int] = (0, 0, 0)


class Bench(Protocol):
    """A running WebUI with the extension, and checkpoints ``a``, ``b`` (a new model object each), ``same_a`` and ``same_b`` (the
    same weights, one model object), where b is a relative of a; where ``xl_a`` is in `checkpoints`, also an SDXL pair."""

    models: Path
    """Its ``models`` folder, with Stable-diffusion, Lora and Lorax in it"""
    checkpoints: tuple[str, ...]
    started: bool

    def picture(self, prompt: str, **fields: Any) -> Picture: ...

    def switch(self, checkpoint: str) -> None: ...

    def set(self, **options: Any) -> None: ...

    def get(self, path: str, **query: str) -> Any: ...

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any: ...

    def trace(self) -> Mapping[str, Any]: ...

    def close(self) -> None: ...

    def log(self) -> str: ...


class Refused(Exception):
    """The WebUI answered with an error: (status, text)."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status, self.text = status, text
