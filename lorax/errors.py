"""What can go wrong, as values a person can act on.

::

    LoraxError
    ├── FileError              the file system said no
    │   ├── MalformedFile      not the file format that it claims to be
    │   ├── UnsafeFile         a pickle that holds more than tensors
    │   └── WouldOverwrite     the output exists, or is an input
    ├── UnknownFormat          a sound file, but neither an adapter nor a base that we know
    ├── MalformedAdapter       an adapter whose tensors do not make sense
    ├── MalformedCheckpoint    a base whose tensors do not make sense
    ├── SourceNeeded           the source base has to be given
    ├── BaseMismatch           the adapter was made for another base
    ├── NotTransferable        refused: the two bases do not share what a transfer needs
    ├── Cancelled              the user stopped it
    └── MissingPackage         an optional package is not installed

Every message is one line: what was expected, what was found, what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LoraxError(Exception):
    """Base class: an error with one line for the user and no need for a traceback."""


class FileError(LoraxError):
    """A file cannot be read or written."""


class MalformedFile(FileError):
    """The bytes are not the file format that the name promises."""


class UnsafeFile(FileError):
    """A pickle that would run code; only tensors are read."""


class WouldOverwrite(FileError):
    """The output already exists, or is one of the inputs."""


class UnknownFormat(LoraxError):
    """A sound file whose keys belong to no format or architecture that we know."""


class MalformedAdapter(LoraxError):
    """An adapter whose tensors disagree with each other or with the base."""


class MalformedCheckpoint(LoraxError):
    """A base checkpoint whose tensors disagree with its architecture."""


class SourceNeeded(LoraxError):
    """The adapter's source base is needed for what was asked."""


class BaseMismatch(LoraxError):
    """The adapter was made for another base than the one given."""


class NotTransferable(LoraxError):
    """The two bases do not share what a transfer needs; nothing was written."""


class Cancelled(LoraxError):
    """The user stopped the work; nothing was half-written."""


class MissingPackage(LoraxError):
    """An optional package is needed for what was asked."""


def one_line(text: str) -> str:
    """`text` on one line, control characters shown as escapes: safe for a terminal, a log and a report."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))


def nearest(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the most similar known name, or an empty string."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{found[0]}'?" if found else ""
