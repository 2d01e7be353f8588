"""``transfer``: one adapter from its base to another."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from converter.console import Bars, say, show, show_json
from converter.files import check_output, chosen_output, default_output, input_paths, json_text, require_files, write_report
from converter.sources import find_source
from lorax import (
    Adapter,
    Bases,
    Cache,
    Checkpoint,
    Component,
    Progress,
    TransferPlan,
    TransferReport,
    TransferSettings,
    copy_sidecars,
    default_folder,
    open_checkpoint,
    output_metadata,
    plan_to_json,
    plan_to_text,
    plan_transfer,
    read_adapter,
    run_plan,
    to_html,
    to_json,
    to_markdown,
    to_text,
    write_adapter,
)

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
REFUSED = 3


@dataclass(frozen=True)
class Written:
    """How the output is written."""

    path: Path
    format: Literal["kohya", "peft"] = "kohya"
    dtype: str = "fp16"
    overwrite: bool = False


def run(arguments: Namespace) -> int:
    """The command."""
    require_files([arguments.adapter])
    output = chosen_output(arguments.output, default_output(arguments.adapter, arguments.target))
    check_outputs(arguments, output, input_paths(arguments.adapter, arguments.source, arguments.target))
    settings = settings_from(arguments)
    with ExitStack() as stack:
        progress = stack.enter_context(Bars())
        start = time.perf_counter()
        adapter, source, target = open_all(arguments, stack, progress)
        check_outputs(arguments, output, source.paths if source else ())
        plan = plan_transfer(adapter, source, target, settings, progress=progress)
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
        spec = find_source(read_adapter(arguments.adapter), [Path(d) for d in arguments.checkpoints], progress)
        say(f"source base: {spec}")
    source = None if spec is None else stack.enter_context(open_checkpoint(spec))
    return read_adapter(arguments.adapter, source.arch if source else None), source, target


def carry_out(
    plan: TransferPlan,
    adapter: Adapter,
    source: Checkpoint | None,
    target: Checkpoint,
    written: Written,
    bases: Bases | None = None,
    progress: Progress | None = None,
) -> TransferReport:
    """Run the plan and write the adapter with its metadata and sidecars; the report says where it is."""
    progress = progress or _silent
    start = time.perf_counter()
    done = run_plan(plan, adapter, source, target, bases, progress)
    metadata = output_metadata(
        adapter,
        target.name,
        target.hashes(lambda done, total: progress("hashing the target for its metadata", done >> 20, max(1, total >> 20))),
        target.arch,
        written.path.stem,
        {layer: factors.rank for layer, factors in done.modules.items()},
        settings_record(plan.settings, written),
        source_name=source.name if source else None,
        prediction_type=target.prediction_type,
        summary=summary(done.report),
    )
    write_adapter(
        written.path,
        done.modules,
        target.arch,
        shapes=done.shapes,
        format=written.format,
        dtype=DTYPES[written.dtype],
        metadata=metadata,
        overwrite=written.overwrite,
    )
    if adapter.path is not None:
        copy_sidecars(adapter.path, written.path, overwrite=written.overwrite)
    return replace(done.report, output=str(written.path), seconds=time.perf_counter() - start, extra=provenance(metadata))


def settings_record(settings: TransferSettings, written: Written) -> dict[str, str]:
    """The settings that decide what is in the file, as strings; where and how fast it was made does not."""
    values = {**asdict(settings), "format": written.format, "dtype": written.dtype}
    for name in ("force", "device"):
        del values[name]
    values["components"] = None if settings.components is None else ",".join(str(c) for c in settings.components)
    values["only"], values["skip"] = ",".join(settings.only), ",".join(settings.skip)
    return {name: str(value) for name, value in values.items() if value not in (None, "")}


def summary(report: TransferReport) -> dict[str, str]:
    """What the file itself says about its making."""
    plan, kept = report.plan, report.energy_kept
    return {
        "method": plan.method,
        "verdict": plan.verdict,
        "modules_in": str(report.modules_in),
        "modules_out": str(report.modules_out),
        "energy_kept": "" if kept is None else f"{kept:.4f}",
    }


def provenance(metadata: dict[str, str]) -> dict[str, str]:
    """The lines of a report that say what the file was made from."""
    names = {
        "adapter sha256": "lorax.source_adapter_sha256",
        "target sha256": "ss_new_sd_model_hash",
        "made by": "lorax.version",
    }
    found = {title: metadata[key] for title, key in names.items() if metadata.get(key)}
    return {title: f"LoRA-X {value}" if title == "made by" else value for title, value in found.items()}


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


def cached_bases() -> Bases:
    """Singular vectors of bases, kept in the user's cache folder (``$LORAX_CACHE``) for the next time."""
    return Bases(Cache(default_folder()))


def _silent(text: str, done: int, total: int) -> None:
    pass
