"""Values of command-line options, checked where they are parsed so that a mistake is a usage error."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path

COMPONENTS = ("unet", "te1", "te2")
REPORT_SUFFIXES = (".html", ".md", ".json")
DEVICES = "auto, cpu, cuda, cuda:N, xpu, xpu:N or mps"


def device(text: str) -> str:
    """``auto``, or a device by name"""
    if not re.fullmatch(r"auto|cpu|mps|(cuda|xpu)(:\d{1,3})?", text):
        raise ArgumentTypeError(f"'{text}' is not a device: expected {DEVICES}")
    return text


def positive(text: str) -> int:
    """A whole number from 1 up."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ArgumentTypeError(f"'{text}' is not a whole number from 1 up")
    return int(text)


def port(text: str) -> int:
    """A TCP port, 0 for any that is free."""
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise ArgumentTypeError(f"'{text}' is not a port: expected 0 to 65535")
    return int(text)


def between(low: float, high: float, open_below: bool = False) -> Callable[[str], float]:
    """A parser of numbers from `low` to `high`; `open_below` leaves `low` itself out."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ArgumentTypeError(f"'{text}' is not a number") from None
        if not low <= value <= high or (open_below and value == low):
            raise ArgumentTypeError(f"{text} is out of range: expected {'above' if open_below else 'from'} {low:g} to {high:g}")
        return value

    return parse


strength = between(-100.0, 100.0)
share = between(0.0, 1.0, open_below=True)


def components(text: str) -> tuple[str, ...]:
    """``unet,te1,te2`` or a part of it."""
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    unknown = [name for name in names if name not in COMPONENTS]
    if unknown or not names:
        raise ArgumentTypeError(f"'{text}' is not a list of components: expected some of {','.join(COMPONENTS)}")
    return names


def report_path(text: str) -> Path:
    """A file whose suffix names the report's form."""
    path = Path(text)
    if path.suffix.lower() not in REPORT_SUFFIXES:
        raise ArgumentTypeError(f"'{text}' does not say which report: the name has to end in {', '.join(REPORT_SUFFIXES)}")
    return path


def weighted_adapter(text: str) -> tuple[Path, float]:
    """``ADAPTER[:STRENGTH]``; a colon after a drive letter is part of the path, and so is one that no number follows."""
    head, colon, tail = text.rpartition(":")
    if not colon or len(head) < 2 or not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)", tail):
        return Path(text), 1.0
    if Path(text).exists() and not Path(head).exists():
        return Path(text), 1.0
    return Path(head), strength(tail)
