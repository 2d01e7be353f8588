"""Written files where gradio may serve them from: the folders of models are closed to it, and stay so."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

PREFIX = "lorax-download-"
KEPT = 3600.0
"""Seconds; gradio has a copy of its own long before."""


def downloadable(files: Sequence[Path]) -> list[str]:
    """The same files under their own names in a new temporary folder: hard links where the disk is the same, else copies."""
    if not files:
        return []
    forget_old()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    for file in files:
        try:
            os.link(file, folder / file.name)
        except OSError:
            shutil.copyfile(file, folder / file.name)
    return [str(folder / file.name) for file in files]


def forget_old() -> None:
    """Take away the folders of earlier downloads."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if time.time() - folder.lstat().st_mtime > KEPT:
            shutil.rmtree(folder, ignore_errors=True)
