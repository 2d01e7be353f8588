"""``transfer --method distill``: train a LoRA on the target from what the adapter does to the source."""

from __future__ import annotations

import signal
from argparse import Namespace
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from converter.console import Bars, quiet_libraries, rows, say, show, show_json
from converter.distill_options import OPTIONS
from converter.files import json_text, write_report


def run(arguments: Namespace, source: str, output: Path) -> int:
    """Train, or with --dry-run say what would be done."""
    quiet_libraries()
    from lorax import Component
    from lorax.train.distill import DistillSettings, distill, distill_to_html, distill_to_json, distill_to_markdown, distill_to_text

    components = arguments.components
    chosen = {name: value for name in OPTIONS if (value := getattr(arguments, name)) is not None}
    settings = DistillSettings(
        **chosen,
        rank=arguments.out_rank,
        only=tuple(arguments.only),
        skip=tuple(arguments.skip),
        components=None if components is None else tuple(Component(c) for c in components),
        strength=arguments.strength,
        format=arguments.format,
        dtype=arguments.dtype,
        device=arguments.device,
        overwrite=arguments.force,
        force=arguments.force,
    )
    if arguments.dry_run:
        return _dry_run(arguments, source, output, settings)
    with ExitStack() as stack:
        progress = stack.enter_context(Bars())
        stopped = stack.enter_context(interruptible())

        def on_step(step: int, steps: int, loss: float) -> None:
            progress.note(f"loss {loss:.3f}")

        report = distill(arguments.adapter, source, arguments.target, output, settings, progress, on_step, stopped)
    if arguments.report is not None:
        forms: dict[str, Callable[[], str]] = {
            ".html": lambda: distill_to_html(report),
            ".md": lambda: distill_to_markdown(report),
            ".json": lambda: json_text(distill_to_json(report)),
        }
        write_report(arguments.report, forms, arguments.force)
        say(f"report: {arguments.report}")
    if arguments.json:
        show_json(distill_to_json(report))
    else:
        show(distill_to_text(report))
    return 0


def _dry_run(arguments: Namespace, source: str, output: Path, settings: Any) -> int:
    from lorax.train.distill import check_paths, open_job, require_packages

    require_packages()
    with open_job(arguments.adapter, source, arguments.target, settings) as job:
        check_paths(job, output)
        sampling, measuring, training = job.passes
        told: dict[str, Any] = {
            "command": "transfer",
            "method": "distill",
            "dry_run": True,
            "adapter": job.adapter.name,
            "source": job.source.name,
            "target": job.target.name,
            "rank": job.rank,
            "layers": len(job.wanted),
            "steps": settings.steps,
            "device": str(job.device),
            "precision": job.precision,
            "sampling_passes": sampling,
            "measuring_passes": measuring,
            "training_passes": training,
            "prompts": list(job.prompts[:3]),
            "notes": list(job.notes),
            "output": str(output),
        }
    if arguments.json:
        show_json(told)
    else:
        show(rows(("distill, which is training", "dry run: nothing was written"), _lines(told)))
    return 0


def _lines(told: dict[str, Any]) -> list[tuple[str, str]]:
    shown = {key: value for key, value in told.items() if key not in ("command", "method", "dry_run")}
    return [
        (key.replace("_", " "), "; ".join(value) if isinstance(value, list) else str(value)) for key, value in shown.items() if value != []
    ]


@contextmanager
def interruptible() -> Generator[Callable[[], bool]]:
    """Ctrl-C asks for a stop, which the yielded function tells; a second one stops at once."""
    asked = False

    def stop(*_: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    try:
        before = signal.signal(signal.SIGINT, stop)
    except ValueError:  # not in the main thread
        yield lambda: False
        return
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)
