"""The base that an adapter's metadata names, found among the checkpoints of some folders."""

from __future__ import annotations

from pathlib import Path

from lorax.adapter import Adapter
from lorax.cache import default_folder
from lorax.catalog import Catalog, Match
from lorax.errors import FileError, SourceNeeded
from lorax.transfer.types import Progress


def find_source(adapter: Adapter, folders: list[Path], progress: Progress) -> Match:
    """The adapter's base; SourceNeeded where it is not in `folders`, or only a file of its name is.

    Hashes are proof; a name (`Match.by`) is a guess, taken only where the metadata has no hash to hold against it.
    """
    if not folders:
        raise SourceNeeded("'--source auto' needs to know where the checkpoints are: give --checkpoints DIR")
    for folder in folders:
        if not folder.is_dir():
            raise FileError(f"'{folder}', given with --checkpoints, is not a folder")
    hint = adapter.base
    if not (hint.name or hint.sha256 or hint.autov1):
        raise SourceNeeded(f"'{adapter.name}' does not say which base it was made for: give it with --source BASE")

    match = Catalog.scan(folders, default_folder() / "files.json", progress).lookup(hint)
    if match is None:
        raise SourceNeeded(f"the base of '{adapter.name}' ({hint}) is not in the folders given: give it with --source BASE")
    if match.contradicted:
        raise SourceNeeded(
            f"'{match.path}' has the name of the base of '{adapter.name}' ({hint}), but not its hash: "
            "if it is the same model in another precision, give it with --source"
        )
    return match
