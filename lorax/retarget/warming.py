"""Transfers in the background: one thread, the latest wishes, and it gives way to pictures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from lorax.errors import Cancelled, LoraxError
from lorax.hosts.base import KnownBase, RetargetOptions, Wish
from lorax.transfer.types import Progress

Wanted = tuple[Wish, KnownBase, RetargetOptions]
PAUSE = 0.5
"""Seconds before work begins, so that the host is done with its switch, and before work that gave way is taken up again."""


class Warmer:
    """Calls `carry` for what is wanted; errors are left to the picture that meets them."""

    def __init__(self, carry: Callable[[Wish, KnownBase, RetargetOptions, Progress], object]) -> None:
        self._carry = carry
        self._wanted: list[Wanted] = []
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def want(self, wanted: Sequence[Wanted]) -> None:
        """Replace what is wanted; what is being worked on and is no longer wanted stops."""
        with self._lock:
            self._wanted = list(wanted)
            if self._wanted and not self.busy:
                self._thread = threading.Thread(target=self._run, name="lorax-warm", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        time.sleep(PAUSE)
        while (item := self._next()) is not None:
            try:
                self._carry(*item, self._check(item))
            except Cancelled:
                time.sleep(PAUSE)
                continue
            except (LoraxError, OSError, RuntimeError, MemoryError):
                pass
            with self._lock:
                if item in self._wanted:
                    self._wanted.remove(item)

    def _next(self) -> Wanted | None:
        with self._lock:
            if not self._wanted:
                self._thread = None
                return None
            return self._wanted[0]

    def _check(self, item: Wanted) -> Progress:
        def progress(text: str, done: int, total: int) -> None:
            if item not in self._wanted:
                raise Cancelled("no longer wanted")

        return progress
