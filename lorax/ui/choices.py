"""What a person chose in the transfer panels, as the values that the library takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from lorax.errors import LoraxError
from lorax.transfer.types import Method, TransferSettings

AUTO = "find it by itself"
"""Choice of a source: the one that the adapter's metadata names."""
UNKNOWN = "none: go by names and shapes"
"""Choice of a source: none is at hand."""
METHODS = {
    "auto: what fits": "auto",
    "align: channel by matching channel": "align",
    "project: the rule of the LoRA-X paper": "project",
    "copy: the plain control": "copy",
}


@dataclass(frozen=True)
class Options:
    """How adapters are carried and written."""

    settings: TransferSettings
    folder: str
    """Name of the folder of the results."""
    format: Literal["kohya", "peft"] = "kohya"
    dtype: str = "fp16"
    overwrite: bool = False


def options_from(
    method: str,
    rank: float | None,
    out_rank: float | None,
    gate: float | None,
    strength: float | None,
    only: str,
    skip: str,
    format: str,
    dtype: str,
    overwrite: bool,
    force: bool,
    folder: str,
    device: str,
) -> Options:
    """The fields of the panel in their order, then the device; LoraxError for a number out of range."""
    settings = TransferSettings(
        method=cast("Method", METHODS.get(method, "auto")),
        k=_whole(rank, "rank k"),
        out_rank=_whole(out_rank, "rank of the new file"),
        min_similarity=_gate(gate),
        only=_patterns(only),
        skip=_patterns(skip),
        strength=1.0 if strength is None else float(strength),
        force=bool(force),
        device=device,
    )
    return Options(settings, folder, "peft" if format == "peft" else "kohya", dtype or "fp16", bool(overwrite))


def _whole(value: float | None, what: str) -> int | None:
    if not value:
        return None
    if value < 0 or value != int(value):
        raise LoraxError(f"the {what} is a whole number from 1, or 0 for the default, not {value:g}")
    return int(value)


def _gate(value: float | None) -> float | None:
    if value is None or value < 0:
        return None
    if value > 1:
        raise LoraxError(f"the similarity gate lies between 0 and 1, or is -1 for the default, not {value:g}")
    return float(value)


def _patterns(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())
