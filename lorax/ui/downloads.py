"""Written files where gradio may serve them from: the folders of models are closed to it, and stay so."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path


def downloadable(files: Sequence[Path]) -> list[str]:
    """The same files under their own names in a new temporary folder: hard links where the disk is the same, else copies."""
    if not files:
        return []
    folder = Path(tempfile.mkdtemp(prefix="lorax-"))
    for file in files:
        try:
            os.link(file, folder / file.name)
        except OSError:
            shutil.copyfile(file, folder / file.name)
    return [str(folder / file.name) for file in files]
