"""Work in a thread of its own that tells how far it is and can be stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from lorax.errors import Cancelled, LoraxError, one_line
from lorax.transfer.types import Progress
from lorax.ui.wording import in_words_of_a_page

Work = Callable[[Progress], Iterator[Any]]
"""Yields what is known so far; the last is the result. Raises LoraxError."""

PHASES = {
    "reading": (0.0, 0.05),
    "matching blocks": (0.05, 0.2),
    "comparing the two bases": (0.2, 0.5),
    "comparing channels": (0.5, 0.55),
    "aligning channels": (0.55, 0.6),
    "transferring": (0.6, 0.9),
    "hashing the target": (0.9, 1.0),
}
"""How texts of the library's progress begin, and what share of a transfer is done when each begins and ends."""


class Estimate:
    """From the library's progress, a text and counts, the share of a whole transfer and the seconds that are left."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.text, self.share = "starting", 0.0

    def __call__(self, text: str, done: int, total: int) -> None:
        """`lorax.transfer.types.Progress`; several transfers in a row say ``[2/5] …``."""
        part, parts, phase = 0, 1, text
        if text.startswith("[") and "]" in text:
            counted, _, phase = text[1:].partition("] ")
            part, parts = int(counted.partition("/")[0]) - 1, int(counted.partition("/")[2])
        within = done / total if total else 0.0
        begins, ends = next((span for name, span in PHASES.items() if phase.startswith(name)), (0.0, 1.0))
        within = begins + within * (ends - begins)
        self.text = one_line(text)
        self.share = max(self.share, min(1.0, (part + within) / parts))

    @property
    def seconds_left(self) -> float | None:
        """None while it is too early to tell."""
        spent = time.monotonic() - self._began
        return spent / self.share - spent if self.share > 0.05 and spent > 1.0 else None


class Job:
    """`work` in a thread."""

    def __init__(self, work: Work) -> None:
        self.estimate = Estimate()
        self.latest: Any = None
        self.error: str | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(work,), name="lorax-job", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def stop(self) -> None:
        """Ask it to give up; it does so at its next step."""
        self._stopped.set()

    def wait(self, seconds: float) -> None:
        """At most so long, less where it ends before."""
        self._thread.join(seconds)

    def _progress(self, text: str, done: int, total: int) -> None:
        if self._stopped.is_set():
            raise Cancelled("stopped; nothing was half-written")
        self.estimate(text, done, total)

    def _run(self, work: Work) -> None:
        try:
            for value in work(self._progress):
                self.latest = value
        except Exception as error:
            self.error = line_of(error)


def line_of(error: Exception) -> str:
    """What a person reads of an error: one line, in the words of a page."""
    if isinstance(error, LoraxError):
        return in_words_of_a_page(str(error))
    if isinstance(error, OSError):
        return one_line(f"{error.filename or ''} {error.strerror or error}".strip())
    if isinstance(error, MemoryError):
        return "out of memory: close other programs, or choose fewer layers"
    return one_line(f"{type(error).__name__}: {error}")
