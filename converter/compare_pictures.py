"""``compare-pictures``: an adapter on its source and in several ways on a target, drawn side by side."""

from __future__ import annotations

from argparse import Namespace

from converter.console import Bars, quiet_libraries, show, show_json
from converter.distill import interruptible
from converter.files import require_files
from lorax.train.compare import CompareSettings, compare_pictures, comparison_to_json, comparison_to_text
from lorax.train.distill import DistillSettings, read_prompts

SAME = ("methods", "seeds", "seed", "steps", "guidance", "resolution", "batch_size", "precision", "device")
"""Options that are called as the settings are."""


def run(arguments: Namespace) -> int:
    """The command."""
    quiet_libraries()
    require_files([arguments.adapter, *([arguments.distilled] if arguments.distilled else [])])
    training = {} if arguments.distill_steps is None else {"steps": arguments.distill_steps}
    settings = CompareSettings(
        prompts=tuple(read_prompts(arguments.prompts)),
        **{name: getattr(arguments, name) for name in SAME},
        source_config=arguments.source_config,
        target_config=arguments.target_config,
        distilled=arguments.distilled,
        distill=DistillSettings(**training, prompts=arguments.prompts),
        overwrite=arguments.force,
    )
    with Bars() as progress, interruptible() as stopped:
        made = compare_pictures(arguments.adapter, arguments.source, arguments.target, arguments.output, settings, progress, stopped)
    if arguments.json:
        show_json(comparison_to_json(made))
    else:
        show(comparison_to_text(made))
    return 0
