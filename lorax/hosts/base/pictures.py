"""What stands on a picture in the making for the tags in it: a strength that multiplies all of theirs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lorax.hosts.base.values import Wish

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
