"""The service behind a switch of checkpoints: adapters carried once per (adapter, base, settings), and found again.

It knows no host: a host gives it wishes, bases and options, and gets files that the host's own loader reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from lorax.hosts.base import KnownBase
from lorax.retarget.service import Folders, Retargeter

__all__ = ["Folders", "Retargeter", "make_service"]


def make_service(adapters: tuple[Path, ...], cache: Path, limit: int, bases: Callable[[], Sequence[KnownBase]]) -> Retargeter:
    """A `Retargeter` for a host that starts. limit: bytes of transferred adapters to keep in `cache`."""
    return Retargeter(Folders(adapters, cache, limit), bases)
