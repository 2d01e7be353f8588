"""``transfer``: one adapter from its base to another."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from converter import distill
from converter.console import Bars, say, show, show_json
from converter.distill_options import stray_option
from converter.files import chosen_output, input_paths, json_text, require_files, write_report
from lorax import (
    Adapter,
    Checkpoint,
    Component,
    LoraxError,
    Progress,
    SourceNeeded,
    TransferPlan,
    TransferReport,
    TransferSettings,
    Written,
    cached_bases,
    carry_out,
    check_output,
    default_folder,
    default_output,
    find_source,
    open_checkpoint,
    plan_to_json,
    plan_to_text,
    plan_transfer,
    read_adapter,
    to_html,
    to_json,
    to_markdown,
    to_text,
)

REFUSED = 3


def run(arguments: Namespace) -> int:
    """The command."""
    require_files([arguments.adapter])
    output = chosen_output(arguments.output, default_output(arguments.adapter, arguments.target))
    check_outputs(arguments, output, input_paths(arguments.adapter, arguments.source, arguments.target))
    stray = stray_option(arguments)
    if stray is not None:
        raise LoraxError(f"{stray} means nothing with --method {arguments.method}: leave it out, or choose another method")
    if arguments.method == "distill":
        return _distill(arguments, output)
    settings = settings_from(arguments)
    with ExitStack() as stack:
        progress = stack.enter_context(Bars())
        start = time.perf_counter()
        adapter, source, target = open_all(arguments, stack, progress)
        check_outputs(arguments, output, source.paths if source else ())
        plan = plan_transfer(adapter, source, target, settings, progress=progress, relations=default_folder() / "relations")
        if arguments.dry_run:
            progress.close()
            return _show_plan(arguments, plan, adapter)
        written = Written(output, arguments.format, arguments.dtype, arguments.force)
        report = carry_out(plan, adapter, source, target, written, cached_bases(), progress)
        report = replace(report, seconds=time.perf_counter() - start)
    save_report(arguments.report, report, arguments.force)
    if arguments.json:
        show_json(to_json(report))
    else:
        show(to_text(report))
    return 0


def _distill(arguments: Namespace, output: Path) -> int:
    """Training, which needs the source itself."""
    spec: str | None = arguments.source
    if spec == "auto":
        with Bars() as progress:
            spec = _found_source(arguments, progress)
    if spec is None:
        raise SourceNeeded("distillation runs the adapter on its own base: give it with --source")
    return distill.run(arguments, spec, output)


def check_outputs(arguments: Namespace, output: Path, inputs: Sequence[Path]) -> None:
    """Everything that can be refused before work: outputs that are inputs, that exist, or that are each other."""
    if not arguments.dry_run:
        check_output(output, inputs, arguments.force)
    if arguments.report is not None:
        check_output(arguments.report, [*inputs, output], arguments.force)


def settings_from(arguments: Namespace) -> TransferSettings:
    """The settings of `transfer` and `batch`."""
    components = arguments.components
    return TransferSettings(
        method=arguments.method,
        k=arguments.rank,
        out_rank=arguments.out_rank,
        out_energy=arguments.out_energy,
        min_similarity=arguments.min_similarity,
        only=tuple(arguments.only),
        skip=tuple(arguments.skip),
        components=None if components is None else tuple(Component(c) for c in components),
        strength=arguments.strength,
        force=arguments.force,
        device=arguments.device,
    )


def open_all(arguments: Namespace, stack: ExitStack, progress: Progress) -> tuple[Adapter, Checkpoint | None, Checkpoint]:
    """Adapter, source and target; names in the adapter are resolved against its own base where that is given."""
    target = stack.enter_context(open_checkpoint(arguments.target))
    spec: str | None = arguments.source
    if spec == "auto":
        spec = _found_source(arguments, progress)
    source = None if spec is None else stack.enter_context(open_checkpoint(spec))
    return read_adapter(arguments.adapter, source.arch if source else None, likely=target.arch), source, target


def _found_source(arguments: Namespace, progress: Progress) -> str:
    """``--source auto``"""
    adapter = read_adapter(arguments.adapter)
    match = find_source(adapter, [Path(d) for d in arguments.checkpoints], progress)
    if match.by == "name":
        say(f"warning: '{match.path}' was found by its name alone; '{adapter.name}' has no hash of its base")
    say(f"source base: {match.path}")
    return str(match.path)


def save_report(path: Path | None, report: TransferReport, force: bool, quiet: bool = False) -> None:
    """Write the report, if one is wanted."""
    if path is None:
        return
    forms = {".html": lambda: to_html(report), ".md": lambda: to_markdown(report), ".json": lambda: json_text(to_json(report))}
    write_report(path, forms, force)
    if not quiet:
        say(f"report: {path}")


def _show_plan(arguments: Namespace, plan: TransferPlan, adapter: Adapter) -> int:
    document: dict[str, Any] = plan_to_json(plan, adapter.unmatched)
    if arguments.json:
        show_json(document)
    else:
        show(plan_to_text(plan, adapter.unmatched))
    if arguments.report is not None:
        report = TransferReport(plan, (), adapter.unmatched, 0.0)
        forms = {".html": lambda: to_html(report), ".md": lambda: to_markdown(report), ".json": lambda: json_text(document)}
        write_report(arguments.report, forms, arguments.force)
        say(f"report: {arguments.report}")
    return REFUSED if plan.verdict == "not transferable" and not plan.settings.force else 0
