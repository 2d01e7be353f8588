"""What a card of an adapter says: its text, what a click inserts, and the badge with the verdict. Names and metadata are strangers'."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from pathlib import PureWindowsPath
from typing import Any

from lorax.formats.reading import base_hint
from lorax.hosts.base import Forecast, Service
from lorax.library import Entry
from lorax.render.words import VERDICTS, sentence
from lorax.retarget.source import SIDECAR_KEY

BADGES: Mapping[str, tuple[str, str, str]] = {
    **VERDICTS,
    "base needed": (
        "Base needed",
        "weak",
        "It means nothing without the checkpoint that it was trained on; name that in the card's editor.",
    ),
    "unreadable": ("Unreadable", "bad", "This file cannot be used."),
}
"""Verdict → (label, tone, sentence)."""
CHECKING = ("Checking…", "plain", "It is being compared with the checkpoint in use.")
UNKNOWN_BASE = "base not named"
_UNFIT = set(":<>,\n")
"""What a tag's name cannot hold: the prompt's own marks, and the comma of infotexts."""
_THUMBNAILS = ("data:image/png;base64,", "data:image/jpeg;base64,", "data:image/webp;base64,", "data:image/gif;base64,")


def tag_name(entry: Entry, service: Service) -> str | None:
    """What stands for this file in a prompt, and for no other; None where nothing can."""
    for name in (entry.name, entry.subpath, entry.shorthash):
        if name and not _UNFIT & set(name) and service.find(name).path == entry.path:
            return name
    return None


def prompt_of(name: str, notes: Mapping[str, Any]) -> str:
    """JavaScript for what a click inserts: ``<lorax:name:1>`` and the trigger words.

    notes: the user's metadata beside the file, with the built-in's keys; without a weight there the WebUI's default is taken.
    """
    weight = weight_of(notes)
    multiplier = json.dumps(f"{weight:g}") if weight else "opts.extra_networks_default_multiplier"
    words = str(notes.get("activation text") or "").strip()
    tail = f" + {json.dumps(' ' + words)}" if words else ""
    return f"{json.dumps(f'<lorax:{name}:')} + {multiplier} + {json.dumps('>')}{tail}"


def negative_of(notes: Mapping[str, Any]) -> str:
    """JavaScript for what a click adds to the negative prompt."""
    return json.dumps(str(notes.get("negative text") or "").strip())


def made_for(entry: Entry, notes: Mapping[str, Any]) -> str:
    """The base that the user, a transfer or the trainer names, without folder and suffix; or that none is named."""
    said = notes.get(SIDECAR_KEY) or entry.metadata.get("lorax.target_base") or base_hint(entry.metadata).name
    stem = PureWindowsPath(str(said or "").strip()).name
    for suffix in (".safetensors", ".ckpt", ".pt"):
        stem = stem.removesuffix(suffix)
    return f"for {stem}" if stem else UNKNOWN_BASE


def description_of(entry: Entry) -> str:
    """What the file says of itself."""
    return str(entry.metadata.get("modelspec.description") or "")


def thumbnail_of(entry: Entry) -> str | None:
    """The picture inside the file, as the address of a picture of a kind that cannot hold a script."""
    said = entry.metadata.get("modelspec.thumbnail", "")
    return said if said.startswith(_THUMBNAILS) and '"' not in said else None


def has_covers(metadata: Mapping[str, str]) -> bool:
    """The file holds pictures as Forge and AUTOMATIC1111's WebUI know them; a list that is not sound counts as none."""
    try:
        covers = json.loads(metadata.get("ssmd_cover_images", "[]"))
    except ValueError:
        return False
    return isinstance(covers, list) and any(covers)


def search_terms(entry: Entry, notes: Mapping[str, Any]) -> list[str]:
    """What a search finds the card by, escaped: the WebUI puts them into the page as they are."""
    trigger = entry.metadata.get("modelspec.trigger_phrase", "")
    kind = "LoRA-X file" if entry.native else "LoRA"
    terms = (
        f"{entry.subpath} {entry.alias}",
        made_for(entry, notes),
        kind,
        entry.shorthash,
        trigger,
        str(notes.get("activation text") or ""),
    )
    return [html.escape(term) for term in terms if term]


def version_of(entry: Entry) -> str:
    """Forge's name for the family, by which it filters cards."""
    said = f"{entry.metadata.get('ss_base_model_version', '')} {entry.metadata.get('modelspec.architecture', '')}".lower()
    if "xl" in said:
        return "SdVersion.SDXL"
    if "v2" in said or "diffusion-2" in said:
        return "SdVersion.SD2"
    return "SdVersion.SD1" if "v1" in said else "SdVersion.Unknown"


def badge(forecast: Forecast | None) -> str:
    """The verdict as HTML: words, not colour alone."""
    label, tone, said = CHECKING if forecast is None else BADGES.get(forecast.verdict, (forecast.verdict, "plain", ""))
    title = said if forecast is None else f"{said} {sentence(forecast.reason)}"
    kind = "" if forecast is None else html.escape(forecast.verdict)
    return f'<span class="lorax-badge lorax-{tone}" data-verdict="{kind}" title="{html.escape(title)}">{html.escape(label)}</span>'


def dress(card: str, base: str, forecast: Forecast | None) -> str:
    """The WebUI's HTML of a card with badge and base in it, usable by keyboard."""
    extra = f'<div class="lorax-state">{badge(forecast)}<span class="lorax-base">{html.escape(base)}</span></div>'
    before, closing, after = card.rpartition("</div>")
    keys = "if(event.target===this&amp;&amp;(event.key==='Enter'||event.key===' ')){event.preventDefault();this.click()}"
    return before.replace("<div ", f'<div tabindex="0" role="button" onkeydown="{keys}" ', 1) + extra + closing + after


def weight_of(notes: Mapping[str, Any]) -> float:
    """The user's weight for this adapter; 0 where none is set."""
    try:
        return float(notes.get("preferred weight") or 0)
    except (TypeError, ValueError):
        return 0.0
