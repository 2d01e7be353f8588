"""Who computes an entry of the cache: a file that only one process can make, on every system alike."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

STALE = 120.0
"""Seconds after which a claim no longer counts: no entry takes that long, and if one does it is computed twice, no worse."""
UNSIGNED = 5.0
"""Seconds after which a claim without its maker's name no longer counts: its maker was killed before it could write it."""
PAUSE = 0.05
"""Seconds between two looks."""


@contextmanager
def claimed(path: Path, stale: float = STALE) -> Generator[bool]:
    """Hold the claim `path`; waits while a living process holds it, and then yields True. A folder that cannot be written has no claims.

    stale: seconds after which it does not count.
    """
    waited = False
    mine = False
    while True:
        try:
            mine = _make(path)
        except OSError:
            break
        if mine or not _wait(path, stale):
            break
        waited = True
    try:
        yield waited
    finally:
        if mine:
            with contextlib.suppress(OSError):
                path.unlink()


def _make(path: Path) -> bool:
    """Whether the file could be made; raises OSError for a reason other than that it is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    except PermissionError:
        if path.exists():  # Windows, while the holder removes it
            return False
        raise
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(f"{os.getpid()} {socket.gethostname().encode('ascii', 'replace').decode()}")
    return True


def _wait(path: Path, stale: float) -> bool:
    """Until the claim is given up, or is found dead and removed. False where it can be neither."""
    while True:
        try:
            age = time.time() - path.stat().st_mtime
            claim = path.read_text(encoding="ascii", errors="replace")
            dead = age > (stale if claim else min(stale, UNSIGNED)) or not _alive(claim)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        if dead:
            with contextlib.suppress(FileNotFoundError):
                try:
                    path.unlink()
                except PermissionError:
                    return False
            return True
        time.sleep(PAUSE)


def _alive(claim: str) -> bool:
    """Whether the process that made the claim runs. Where that cannot be told (another machine, Windows, half written), yes."""
    pid, _, host = claim.partition(" ")
    if os.name == "nt" or not pid.isdigit() or host != socket.gethostname():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
