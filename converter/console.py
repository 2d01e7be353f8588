"""What a person sees: progress and messages on stderr, results on stdout."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from types import TracebackType
from typing import Any

from tqdm import tqdm

from lorax import one_line


class Bars:
    """A `lorax.Progress` as one tqdm bar at a time; silent where stderr is no terminal."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._text = ""

    def __call__(self, text: str, done: int, total: int) -> None:
        """Show `done` of `total`; another text closes the bar before it."""
        if self._bar is None or text != self._text:
            self.close()
            self._text = text
            self._bar = tqdm(total=total, desc=one_line(text), leave=False, disable=None, file=sys.stderr, unit="")
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def note(self, text: str) -> None:
        """A figure that changes, at the end of the bar."""
        if self._bar is not None:
            self._bar.set_postfix_str(one_line(text), refresh=False)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def say(message: str) -> None:
    """A message that is not the result: stderr."""
    print(one_line(message), file=sys.stderr)


def show(text: str) -> None:
    """The result: stdout."""
    print(text)


def show_json(document: dict[str, Any]) -> None:
    """The result as exactly one JSON object; NaN is an error of ours, not a value."""
    print(json.dumps(document, indent=2, allow_nan=False))


def rows(head: tuple[str, ...], body: list[tuple[str, ...]]) -> str:
    """A table for a terminal; the first column left, the rest right."""
    widths = [max(len(one_line(row[i])) for row in (head, *body)) for i in range(len(head))]

    def line(row: tuple[str, ...]) -> str:
        cells = [one_line(cell) for cell in row]
        return "  ".join([cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]).rstrip()

    return "\n".join([line(head), line(tuple("-" * w for w in widths)), *(line(row) for row in body)])


def quiet_libraries() -> None:
    """Hide the loading bars and advice of diffusers and transformers; nothing where they are not installed, or do not fit together:
    who needs them will say so."""
    for library in ("diffusers", "transformers"):
        with contextlib.suppress(ImportError):
            logging = importlib.import_module(f"{library}.utils.logging")
            logging.disable_progress_bar()
            logging.set_verbosity_error()
