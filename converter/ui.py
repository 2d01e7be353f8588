"""``ui``: the panels of the WebUI on a page of their own, on this machine only."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from lorax.ui.standalone import place_of, serve


def run(arguments: Namespace) -> int:
    """The command; it ends with Ctrl-C."""
    out: Path = arguments.out or arguments.adapters
    serve(place_of(arguments.adapters, arguments.checkpoints, out, arguments.device), arguments.port)
    return 0
