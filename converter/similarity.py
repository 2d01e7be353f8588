"""``similarity``: two bases compared."""

from __future__ import annotations

from argparse import Namespace

from converter.console import Bars, say, show, show_json
from converter.files import input_paths, json_text, write_report
from lorax import (
    Component,
    check_output,
    compute_similarity,
    open_checkpoint,
    resolve_device,
    similarity_to_html,
    similarity_to_json,
    similarity_to_markdown,
    similarity_to_text,
)


def run(arguments: Namespace) -> int:
    """The command."""
    if arguments.report is not None:
        check_output(arguments.report, input_paths(arguments.source, arguments.target), arguments.force)
    chosen = arguments.components
    with Bars() as progress, open_checkpoint(arguments.source) as source, open_checkpoint(arguments.target) as target:
        report = compute_similarity(
            source,
            target,
            components=None if chosen is None else [Component(c) for c in chosen],
            attention_only=not arguments.all_layers,
            k_sim=arguments.rank,
            device=resolve_device(arguments.device),
            progress=progress,
        )
    if arguments.report is not None:
        forms = {
            ".html": lambda: similarity_to_html(report),
            ".md": lambda: similarity_to_markdown(report),
            ".json": lambda: json_text(similarity_to_json(report)),
        }
        write_report(arguments.report, forms, arguments.force)
        say(f"report: {arguments.report}")
    if arguments.json:
        show_json(similarity_to_json(report))
    else:
        show(similarity_to_text(report))
    return 0
