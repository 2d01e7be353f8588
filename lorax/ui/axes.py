"""Axes for the built-in X/Y/Z plot: method, strength, rank, and the adapter itself (with its own "Checkpoint name": a matrix)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lorax.errors import nearest
from lorax.hosts.base import Host, interface
from lorax.hosts.base.settings import METHODS
from lorax.ui.cards_page import named

NO_ADAPTER = "None"
_TAG = re.compile(r"<lorax:[^:>]+")
_WHOLE_TAG = re.compile(r"\s*<lorax:[^>]*>")


@dataclass(frozen=True)
class Axis:
    """One axis, in the words of the plot's ``AxisOption``."""

    label: str
    kind: type
    apply: Callable[[Any, Any, Sequence[Any]], None]
    """``apply(p, value, all values)`` on a copy of the request"""
    confirm: Callable[[Any, Sequence[Any]], None] | None = None
    """Raises before the first picture where a value means nothing."""
    choices: Callable[[], list[str]] | None = None
    cost: float = 0.0
    """The plot changes the most expensive axis last."""


def axes(host: Host) -> tuple[Axis, ...]:
    """All of ours."""

    def adapters() -> list[str]:
        return sorted(named(host))

    def known(p: Any, values: Sequence[str]) -> None:
        _confirm("adapter", values, [NO_ADAPTER, *adapters()])

    return (
        Axis("[LoRA-X] Method", str, _method, lambda p, values: _confirm("method", values, METHODS), lambda: list(METHODS), 0.2),
        Axis("[LoRA-X] Strength", float, _strength),
        Axis("[LoRA-X] Rank k", int, _rank, _at_least_0, None, 0.2),
        Axis("[LoRA-X] Adapter", str, _adapter, known, lambda: [NO_ADAPTER, *adapters()], 0.3),
    )


def install(host: Host) -> None:
    """Add them before the page is made; the plot's own list outlives a page."""

    def add() -> None:
        plot = interface.grid()
        if plot is None:
            return
        there = {option.label for option in plot.axis_options}
        for axis in axes(host):
            if axis.label not in there:
                option = plot.AxisOption(axis.label, axis.kind, axis.apply, confirm=axis.confirm, cost=axis.cost, choices=axis.choices)
                plot.axis_options.append(option)

    interface.before_page(add)


def _override(p: Any, key: str, value: Any) -> None:
    p.override_settings = {**p.override_settings, key: value}


def _method(p: Any, value: str, values: Sequence[str]) -> None:
    _override(p, "lorax_method", METHODS[value])


def _rank(p: Any, value: int, values: Sequence[int]) -> None:
    _override(p, "lorax_rank", value)


def _strength(p: Any, value: float, values: Sequence[float]) -> None:
    p.lorax_strength = value


def _adapter(p: Any, name: str, values: Sequence[str]) -> None:
    """In the place of every adapter of the prompt, or behind a prompt without one; "None" takes them out."""
    if name == NO_ADAPTER:
        p.prompt = _WHOLE_TAG.sub("", p.prompt)
    elif _TAG.search(p.prompt):
        p.prompt = _TAG.sub(lambda _: f"<lorax:{name}", p.prompt)
    else:
        p.prompt = f"{p.prompt} <lorax:{name}:1>"


def _confirm(what: str, values: Sequence[str], there: Any) -> None:
    for value in values:
        if value not in there:
            raise RuntimeError(f"LoRA-X: no {what} is called '{value}'.{nearest(value, there)}")


def _at_least_0(p: Any, values: Sequence[int]) -> None:
    if any(value < 0 for value in values):
        raise RuntimeError("LoRA-X: the rank of a projection is 0 (the adapter's own) or more")
