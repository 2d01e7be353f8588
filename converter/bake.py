"""``bake``: adapters merged into a checkpoint."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from converter.console import Bars, show, show_json
from converter.files import chosen_output, input_paths, require_files
from lorax import bake_checkpoint, bake_to_json, bake_to_text, cached_bases, check_output, open_checkpoint, read_adapter


def run(arguments: Namespace) -> int:
    """The command."""
    paths: list[Path] = [path for path, _ in arguments.adapters]
    require_files(paths)
    output = chosen_output(arguments.output, Path(f"{Path(arguments.checkpoint).stem}-baked.safetensors"))
    check_output(output, input_paths(arguments.checkpoint, *paths), arguments.force)
    with open_checkpoint(arguments.checkpoint) as base:
        adapters = [(read_adapter(path, base.arch), strength) for path, strength in arguments.adapters]
    with Bars() as progress:
        report = bake_checkpoint(
            arguments.checkpoint,
            adapters,
            output,
            overwrite=arguments.force,
            progress=progress,
            device=arguments.device,
            bases=cached_bases(),
        )
    if arguments.json:
        show_json(bake_to_json(report))
    else:
        show(bake_to_text(report))
    return 0
