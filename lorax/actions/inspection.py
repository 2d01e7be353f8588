"""What a file is: an adapter or a base, with its hashes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from lorax.checkpoint import open_checkpoint
from lorax.digest import autov1_hash, sha256_file
from lorax.errors import UnknownFormat
from lorax.formats import read_adapter
from lorax.render import adapter_to_json, checkpoint_to_json
from lorax.transfer.types import Progress

MEGABYTE = 1 << 20


def inspect_file(spec: str, hashed: bool, progress: Progress) -> dict[str, Any]:
    """One file, folder or ``unet+te1+te2``: as an adapter where it is one, else as a base."""
    path = Path(spec)
    wanted = hashed and path.is_file()
    if path.is_file():
        with suppress(UnknownFormat):
            return adapter_to_json(read_adapter(path), {"sha256": sha256(path, progress)} if wanted else {})
    with open_checkpoint(spec) as checkpoint:
        return checkpoint_to_json(checkpoint, {"sha256": sha256(path, progress), "autov1": autov1_hash(path)} if wanted else {})


def sha256(path: Path, progress: Progress) -> str:
    """Of the whole file, with a bar in megabytes."""

    def tell(done: int, total: int) -> None:
        progress(f"hashing {path.name}", done // MEGABYTE, max(1, total // MEGABYTE))

    return sha256_file(path, tell)
