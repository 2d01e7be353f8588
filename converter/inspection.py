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
    hashes = file_hashes(path, progress) if hashed and path.is_file() else {}
    if path.is_file():
        with suppress(UnknownFormat):
            return adapter_to_json(read_adapter(path), hashes)
    with open_checkpoint(spec) as checkpoint:
        return checkpoint_to_json(checkpoint, hashes)


def file_hashes(path: Path, progress: Progress) -> dict[str, str]:
    """sha256 and A1111's old hash."""
    megabyte = 1 << 20

    def tell(done: int, total: int) -> None:
        progress(f"hashing {path.name}", done // megabyte, max(1, total // megabyte))

    return {"sha256": sha256_file(path, tell), "autov1": autov1_hash(path)}
