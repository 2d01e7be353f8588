"""One transfer at a time, and pictures before background work."""

from __future__ import annotations

import threading
from collections.abc import Generator, Hashable
from contextlib import contextmanager

from lorax.errors import Cancelled
from lorax.transfer.types import Progress


class Turns:
    """Who may work now, and who waits. Calls may come from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Hashable] = []

    @contextmanager
    def taken(self, quick: Hashable, patient: bool, progress: Progress) -> Generator[None]:
        """Hold the turn for the work `quick`; while waiting for it `progress` is called, so that the user can stop.

        patient: background work, which nobody gives way to.
        """
        if not patient:
            self._waiting.append(quick)
        try:
            while not self._lock.acquire(timeout=0.2):
                progress("waiting for another transfer", 0, 1)
        finally:
            if not patient:
                self._waiting.remove(quick)
        try:
            yield
        finally:
            self._lock.release()

    def giving_way(self, progress: Progress, quick: Hashable) -> Progress:
        """`progress` that raises `Cancelled` as soon as a picture waits for work other than `quick`."""

        def checked(text: str, done: int, total: int) -> None:
            if any(waiting != quick for waiting in self._waiting):
                raise Cancelled("the background work gave way to a picture")
            progress(text, done, total)

        return checked
