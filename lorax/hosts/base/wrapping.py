"""Functions of a host, wrapped and unwrapped."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Around = Callable[..., Any]
"""``around(original, *args, **kwargs)``"""


@dataclass
class Wrapped:
    """`owner.name` calls `around(original, …)` until `undo`."""

    owner: Any
    name: str
    original: Callable[..., Any]
    replacement: Callable[..., Any]
    live: list[bool]

    def undo(self) -> None:
        """Put the original back; where another extension has wrapped ours, ours becomes a plain passage."""
        self.live[0] = False
        if getattr(self.owner, self.name) is self.replacement:
            setattr(self.owner, self.name, self.original)


def wrap(owner: Any, name: str, around: Around) -> Wrapped:
    original = getattr(owner, name)
    live = [True]

    @functools.wraps(original)  # callers look at the signature
    def replacement(*args: Any, **kwargs: Any) -> Any:
        return around(original, *args, **kwargs) if live[0] else original(*args, **kwargs)

    setattr(owner, name, replacement)
    return Wrapped(owner, name, original, replacement, live)
