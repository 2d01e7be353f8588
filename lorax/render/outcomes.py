"""What `bake`, `export` and `to-lorax` did, as JSON and terminal text."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lorax.bake import BakeReport
from lorax.export import Reformed
from lorax.render import words
from lorax.render.data import finite, unmatched_rows
from lorax.render.terminal import columns

LOW_ENERGY = 0.9
"""Below it, a warning: an adapter that lost a tenth of its energy is a different one."""
SHOWN = 6


def reformed_to_json(made: Reformed, action: str, output: str) -> dict[str, Any]:
    """An adapter's change of form. action: ``export`` or ``to-lorax``."""
    return {
        "action": action,
        "form": _form(made, action),
        "output": output,
        "modules": len(made.changes),
        "energy_kept": finite(made.energy_kept),
        "warnings": warnings(made, action),
        "left_out": [{"module": module, "reason": reason} for module, reason in made.left_out],
        "layers": [
            {"layer": str(c.layer), "rank": c.rank, "energy_kept": finite(c.energy_out / c.energy_in) if c.energy_in else None}
            for c in made.changes
        ],
    }


def reformed_to_text(made: Reformed, action: str, output: str) -> str:
    """The same for a terminal."""
    more = len(made.left_out) - SHOWN
    return columns(
        [
            ("form", _form(made, action)),
            ("modules", str(len(made.changes))),
            ("energy kept", words.share_to_text(made.energy_kept)),
            *(("warning", line) for line in warnings(made, action)),
            *(("left out", f"{module}: {reason}") for module, reason in made.left_out[:SHOWN]),
            *([("left out", f"{words.count(more, 'more module')} (see --json)")] if more > 0 else []),
            ("wrote", output),
        ]
    )


def warnings(made: Reformed, action: str) -> list[str]:
    """What a user has to know before using the file."""
    kept = made.energy_kept
    if kept is None or kept >= LOW_ENERGY:
        return []
    way_out = (
        "a larger --out-rank keeps more"
        if action == "export"
        else "a LoRA-X adapter that is trained as one loses nothing, so train one rather than convert"
    )
    return [f"{words.share_to_text(1 - kept)} of the adapter's energy is lost, so the new file will not act like the old one; {way_out}"]


def bake_to_json(report: BakeReport) -> dict[str, Any]:
    """What was merged, and what had no place."""
    document = asdict(report)
    for adapter, told in zip(report.adapters, document["adapters"], strict=True):
        told["absent"] = [{"layer": str(a.layer), "reason": a.reason} for a in adapter.absent]
        told["unmatched"] = unmatched_rows(adapter.unmatched)
    document["rounding"] = finite(report.rounding)
    return document


def bake_to_text(report: BakeReport) -> str:
    """The same for a terminal."""
    lines = [("checkpoint", report.checkpoint)]
    for adapter in report.adapters:
        lines.append(("adapter", f"{adapter.name} × {adapter.strength:g}: {words.count(adapter.placed, 'module')} merged"))
        missing = [f"{a.layer}: {a.reason}" for a in adapter.absent] + [f"{key}: {reason}" for key, reason in adapter.unmatched]
        lines += [("left out", line) for line in missing[:SHOWN]]
        if len(missing) > SHOWN:
            lines.append(("left out", f"{len(missing) - SHOWN} more (see --json)"))
    lines.append(("tensors", f"{report.changed} of {report.tensors} changed"))
    if report.rounding > 0:
        lines.append(("rounding", f"{words.share_to_text(report.rounding)} of the change's energy is noise of the stored precision"))
    lines += [("note", note) for note in report.notes]
    return columns([*lines, ("time", words.duration(report.seconds)), ("wrote", report.output)])


def _form(made: Reformed, action: str) -> str:
    if action == "export":
        return "standard LoRA"
    return "LoRA-X, σ only: it needs its base" if made.sigmas else "LoRA-X, self-contained"
