"""``to-lorax`` and ``export``: between ordinary adapters and LoRA-X files, on the adapter's own base."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from converter.console import Bars, show, show_json
from converter.files import chosen_output, input_paths, require_files
from lorax import (
    DTYPES,
    Adapter,
    BaseHint,
    Checkpoint,
    LayerId,
    Progress,
    Reformed,
    TransferSettings,
    cached_bases,
    check_output,
    export_adapter,
    open_checkpoint,
    output_metadata,
    read_adapter,
    reformed_to_json,
    reformed_to_text,
    to_lorax,
    to_sigma,
    write_adapter,
    write_native,
    write_self_contained,
)


def run(arguments: Namespace) -> int:
    """Both commands."""
    require_files([arguments.adapter])
    output = chosen_output(arguments.output, arguments.adapter.with_name(f"{arguments.adapter.stem}-{arguments.command}.safetensors"))
    check_output(output, input_paths(arguments.adapter, arguments.base), arguments.force)
    work = write_export if arguments.command == "export" else write_sigma if arguments.diagonal else write_lorax
    with Bars() as progress, open_checkpoint(arguments.base) as base:
        made = work(arguments, read_adapter(arguments.adapter, base.arch), base, output, progress)
    if arguments.json:
        show_json(reformed_to_json(made, arguments.command, str(output)))
    else:
        show(reformed_to_text(made, arguments.command, str(output)))
    return 0


def write_export(arguments: Namespace, adapter: Adapter, base: Checkpoint, output: Path, progress: Progress) -> Reformed:
    """A standard LoRA for the adapter's own base."""
    settings = TransferSettings(out_rank=arguments.out_rank, out_energy=arguments.out_energy, device=arguments.device)
    made = export_adapter(adapter, base, settings, cached_bases(), progress)
    write_adapter(
        output,
        made.modules,
        base.arch,
        shapes=made.shapes,
        format=arguments.format,
        dtype=DTYPES[arguments.dtype],
        metadata=_metadata(arguments, adapter, base, output, {i: f.rank for i, f in made.modules.items()}),
        overwrite=arguments.force,
    )
    return made


def write_lorax(arguments: Namespace, adapter: Adapter, base: Checkpoint, output: Path, progress: Progress) -> Reformed:
    """A self-contained LoRA-X file with a full ΔΣ."""
    made = to_lorax(adapter, base, arguments.rank, arguments.device, cached_bases(), progress)
    write_self_contained(
        output,
        made.modules,
        base.arch,
        shapes=made.shapes,
        k=arguments.rank,
        diagonal=False,
        base=_hint(base),
        metadata=_metadata(arguments, adapter, base, output, {i: f.rank for i, f in made.modules.items()}),
        dtype=DTYPES[arguments.dtype],
        overwrite=arguments.force,
    )
    return made


def write_sigma(arguments: Namespace, adapter: Adapter, base: Checkpoint, output: Path, progress: Progress) -> Reformed:
    """A σ file."""
    dtype = DTYPES[arguments.dtype]
    made = to_sigma(adapter, base, arguments.rank, dtype, arguments.device, cached_bases(), progress)
    write_native(
        output,
        made.sigmas,
        base.arch,
        fingerprints=made.fingerprints,
        k=arguments.rank,
        base=_hint(base),
        metadata=_metadata(arguments, adapter, base, output, {i: s.numel() for i, s in made.sigmas.items()}),
        dtype=dtype,
        overwrite=arguments.force,
    )
    return made


def _hint(base: Checkpoint) -> BaseHint:
    hashes = base.hashes()
    return BaseHint(base.name, hashes.sha256 if hashes else None, hashes.autov1 if hashes else None)


def _metadata(arguments: Namespace, adapter: Adapter, base: Checkpoint, output: Path, ranks: dict[LayerId, int]) -> dict[str, str]:
    names = ("rank", "diagonal", "out_rank", "out_energy", "format", "dtype")
    settings = {name: str(value) for name in names if (value := getattr(arguments, name, None)) not in (None, False)}
    return output_metadata(
        adapter,
        base.name,
        base.hashes(),
        base.arch,
        output.stem,
        ranks,
        settings,
        action=arguments.command,
        source_name=base.name,
        prediction_type=base.prediction_type,
    )
