"""``<lorax:name:unet:te>`` with named arguments, as the part of a prompt that it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

from lorax.errors import LoraxError, nearest
from lorax.hosts.base.values import Wish
from lorax.transfer.types import Method

NAMED = ("unet", "te", "method", "rank", "source")


def parse_wish(items: Sequence[str]) -> Wish:
    """items: what stands between the colons behind ``lorax``. One number is for both networks, two are UNet and text encoder.

    Raises LoraxError with one line that quotes what is wrong.
    """
    said = "<lorax:" + ":".join(str(i) for i in items) + ">"
    positional = [str(i).strip() for i in items if "=" not in str(i)]
    named = dict(_named(str(i), said) for i in items if "=" in str(i))
    if not positional or not positional[0]:
        raise LoraxError(f"{said}: the name of an adapter is missing: write <lorax:name:1>")
    if len(positional) > 3:
        raise LoraxError(f"{said}: at most a name and two numbers (UNet, text encoder) stand without '='")
    strength = _number(positional[1], said) if len(positional) > 1 else 1.0
    unet = _number(named["unet"], said) if "unet" in named else strength
    te = _number(named["te"], said) if "te" in named else _number(positional[2], said) if len(positional) > 2 else strength
    return Wish(positional[0], unet, te, _method(named.get("method"), said), _rank(named.get("rank"), said), named.get("source") or None)


def _named(item: str, said: str) -> tuple[str, str]:
    key, _, value = item.partition("=")
    key = key.strip().lower()
    if key not in NAMED:
        raise LoraxError(f"{said}: '{key}' is none of {', '.join(NAMED)}.{nearest(key, NAMED)}")
    return key, value.strip()


def _number(text: str, said: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise LoraxError(f"{said}: '{text}' is no number")
    return value


def _method(text: str | None, said: str) -> Method | None:
    if text is None:
        return None
    for method in get_args(Method):
        if text.lower() == method:
            return method
    raise LoraxError(f"{said}: the method '{text}' is none of {', '.join(get_args(Method))}.{nearest(text, get_args(Method))}")


def _rank(text: str | None, said: str) -> int | None:
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise LoraxError(f"{said}: rank= takes a whole number from 1, not '{text}'")
    return int(text)
