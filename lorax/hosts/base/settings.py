"""The settings of the extension as data: every host shows them in its own way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast, get_args

from lorax.device import DEVICE_NAMES
from lorax.errors import LoraxError
from lorax.hosts.base.values import RetargetOptions, UnknownSource
from lorax.transfer.types import Method

METHODS = {
    "auto": "auto (copy between relatives, project LoRA-X files, align other widths)",
    "align": "always align channels by the weights of both checkpoints",
    "project": "always project, as in the paper",
    "copy": "always copy",
}


@dataclass(frozen=True)
class Setting:
    """One line of the settings page."""

    key: str
    default: Any
    label: str
    info: str = ""
    choices: tuple[str, ...] = ()
    infotext: str | None = None
    """Under which name it stands in the infotext where it is not the default; None: it does not change pictures."""


SETTINGS: tuple[Setting, ...] = (
    Setting("lorax_method", METHODS["auto"], "How adapters are carried to another checkpoint", "", tuple(METHODS.values()), "LoraX method"),
    Setting("lorax_rank", 0, "Rank k of a projection", "0: the adapter's own, or 320", (), "LoraX rank"),
    Setting("lorax_out_rank", 0, "Largest rank of a folded adapter", "0: ordinary LoRAs keep theirs, others get 64", (), "LoraX out rank"),
    Setting("lorax_gate", -1.0, "Leave out layers less similar than this", "0 to 1 above chance; -1: the method's own", (), "LoraX gate"),
    Setting("lorax_unknown_source", "copy", "If the checkpoint that an adapter was trained on is not here", "", get_args(UnknownSource)),
    Setting("lorax_sources", "", "Source checkpoints of adapters that do not name theirs", "such as: sd1=v1-5-pruned, sdxl=sd_xl_base_1.0"),
    Setting("lorax_warm", True, "After a switch, prepare the adapters in use in the background"),
    Setting("lorax_device", "auto", "Where transfers are computed", DEVICE_NAMES),
    Setting("lorax_keep", 4, "Adapters kept in memory for each loaded model"),
    Setting("lorax_cache_folder", "", "Folder of transferred adapters", "empty: the user's cache folder; needs Reload UI"),
    Setting("lorax_cache_gb", 8.0, "Size of that folder in GB", "the least recently used go first; needs Reload UI"),
)


def retarget_options(get: Callable[[str], Any]) -> RetargetOptions:
    """The options that the settings say; get: the value of a setting by its key, None where it is not set."""

    def value(key: str) -> Any:
        found = get(key)
        return next(s.default for s in SETTINGS if s.key == key) if found is None else found

    def whole(key: str) -> int | None:
        return int(value(key)) or None

    gate = float(value("lorax_gate"))
    said = str(value("lorax_method"))
    method = next((m for m, title in METHODS.items() if said in (m, title)), "auto")
    unknown = str(value("lorax_unknown_source"))
    return RetargetOptions(
        method=cast("Method", method),
        k=whole("lorax_rank"),
        out_rank=whole("lorax_out_rank"),
        min_similarity=None if gate < 0 else gate,
        device=str(value("lorax_device")) or "auto",
        unknown_source="refuse" if unknown == "refuse" else "copy",
        sources=tuple(read_sources(str(value("lorax_sources"))).items()),
    )


def read_sources(text: str) -> dict[str, str]:
    """``family=checkpoint, …`` as a mapping. Raises LoraxError for anything else."""
    found: dict[str, str] = {}
    for part in (p.strip() for p in text.replace(";", ",").split(",")):
        family, equals, name = (x.strip() for x in part.partition("="))
        if not part:
            continue
        if not equals or not family or not name:
            raise LoraxError(f"the setting 'source checkpoints' has '{part}'; write family=checkpoint, for example sdxl=sd_xl_base_1.0")
        found[family.lower()] = name
    return found
