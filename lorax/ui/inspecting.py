"""What the inspect panel does: say what a file is, and where it is strong."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from lorax.actions import adapter_strengths, checkpoint_strengths, inspect_file
from lorax.checkpoint import open_checkpoint
from lorax.errors import LoraxError
from lorax.formats import read_adapter
from lorax.render.inspection_view import inspection_view
from lorax.safefile import open_tensors
from lorax.transfer.types import Progress
from lorax.ui.workplace import Workplace

ADAPTER, BASE = "adapter: ", "checkpoint: "
"""Begin the names in the list of all files."""


def names(place: Workplace) -> list[str]:
    """Every adapter and every checkpoint."""
    return [ADAPTER + name for name in place.adapters()] + [BASE + name for name in place.bases()]


def inspect(place: Workplace, name: str, hashed: bool, progress: Progress) -> str:
    """The view of one file; hashed: with its hashes, which reads the whole of it."""
    if not name:
        raise LoraxError("choose a file first")
    if name.startswith(ADAPTER):
        path = place.adapter(name.removeprefix(ADAPTER)).path
        document = inspect_file(str(path), hashed, progress)
        return inspection_view(document, metadata_of(path), adapter_strengths(read_adapter(path), None, progress))
    base = place.base(name.removeprefix(BASE))
    document = inspect_file(str(base.spec), hashed, progress)
    with open_checkpoint(base.spec) as checkpoint:
        return inspection_view(document, metadata_of(base.path), checkpoint_strengths(checkpoint, progress))


def metadata_of(path: Path) -> Mapping[str, str]:
    """The metadata in a file's header, as strangers wrote it; none where the format has no place for it."""
    if not path.is_file():
        return {}
    with closing(open_tensors(path)) as file:
        return dict(file.metadata)
