"""A process that fills a cache until it is killed: ``python -m tests.cache.writer FOLDER LOG COUNT PAUSE [FIRST]``.

Each entry is computed slowly enough for two such processes to meet; what was computed here is told in LOG.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lorax.cache import Cache


def content(number: int) -> Mapping[str, Tensor]:
    """The entry of this number."""
    return {"values": torch.full((64, 64), float(number)), "number": torch.tensor([number])}


def main(folder: Path, log: Path, count: int, pause: float, first: int = 0) -> None:
    cache = Cache(folder)
    for number in range(first, count):

        def compute(number: int = number) -> Mapping[str, Tensor]:
            time.sleep(pause)
            with log.open("a") as file:
                file.write(f"{os.getpid()} {number}\n")
            return content(number)

        found = cache.get_or_compute(f"entry-{number}", compute)
        assert all(torch.equal(found[name], tensor) for name, tensor in content(number).items())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), *map(int, sys.argv[5:]))
