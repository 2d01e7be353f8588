"""``inspect``: what files are."""

from __future__ import annotations

from argparse import Namespace

from converter.console import Bars, show, show_json
from lorax import inspect_file, inspection_to_text


def run(arguments: Namespace) -> int:
    """The command."""
    with Bars() as progress:
        found = [inspect_file(spec, not arguments.no_hash, progress) for spec in arguments.files]
    if arguments.json:
        show_json(found[0] if len(found) == 1 else {"files": found})
    else:
        show("\n\n".join(inspection_to_text(one) for one in found))
    return 0
