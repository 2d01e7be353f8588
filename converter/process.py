"""What a command asks of its own process, and nobody may ask of a WebUI's."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys

M_ARENA_MAX = -8
"""glibc's ``malloc.h``."""


def settle() -> None:
    """After the imports. Modules stay: to look through torch's objects again and again takes longer than to open a checkpoint.

    And all threads share one heap, where glibc would give each its own: weights come and go in several threads, and what one of
    them gave back, the others could not have. Other C libraries have no such heaps.
    """
    gc.freeze()
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
