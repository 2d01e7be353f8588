"""What stands on a picture in the making: a strength that multiplies all tags', and what its infotext will say of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lorax.hosts.base import webui
from lorax.hosts.base.infotext import HASHES, hashes_from_infotext, hashes_to_infotext
from lorax.hosts.base.settings import SETTINGS
from lorax.hosts.base.values import Carried, Wish

STRENGTH = "LoraX strength"
"""Its infotext entry."""


def set_strength(p: Any, strength: float) -> None:
    """Multiply the strength of every adapter of this picture; the first that says so stays."""
    if not hasattr(p, "lorax_strength"):
        p.lorax_strength = strength
    if p.lorax_strength != 1.0:
        p.extra_generation_params[STRENGTH] = p.lorax_strength


def strengthened(wish: Wish, p: Any) -> Wish:
    """The wish at the strength of the picture."""
    factor = getattr(p, "lorax_strength", 1.0)
    return wish if factor == 1.0 else replace(wish, unet=wish.unet * factor, te=wish.te * factor)


def write_infotext(p: Any, applied: Mapping[str, Carried]) -> None:
    """Beside what stands there of the first pass, or of the picture that this one is an inner pass of (ADetailer)."""
    before = hashes_from_infotext(str(p.extra_generation_params.get(HASHES, "")))
    now = hashes_to_infotext({name: carried.adapter_hash for name, carried in applied.items()})
    p.extra_generation_params[HASHES] = hashes_to_infotext(before | hashes_from_infotext(now))
    for setting in SETTINGS:
        value = webui.option(setting.key)
        if setting.infotext and value is not None and value != setting.default:
            p.extra_generation_params[setting.infotext] = value
