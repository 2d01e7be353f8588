"""``inspect``: what files are."""

from __future__ import annotations

from argparse import Namespace
from contextlib import suppress
from pathlib import Path
from typing import Any

from converter.console import Bars, show, show_json
from lorax import (
    Progress,
    UnknownFormat,
    adapter_to_json,
    autov1_hash,
    checkpoint_to_json,
    inspection_to_text,
    open_checkpoint,
    read_adapter,
    sha256_file,
)

MEGABYTE = 1 << 20


def run(arguments: Namespace) -> int:
    """The command."""
    with Bars() as progress:
        found = [inspect(spec, not arguments.no_hash, progress) for spec in arguments.files]
    if arguments.json:
        show_json(found[0] if len(found) == 1 else {"files": found})
    else:
        show("\n\n".join(inspection_to_text(one) for one in found))
    return 0


def inspect(spec: str, hashed: bool, progress: Progress) -> dict[str, Any]:
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
