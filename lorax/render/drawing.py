"""A picture before it is framed, so that several can be put together."""

from __future__ import annotations

from dataclasses import dataclass

from lorax.render.markup import Markup, tag
from lorax.render.style import SVG_STYLE


@dataclass(frozen=True)
class Drawing:
    """SVG elements and the room that they take, px."""

    body: Markup
    width: float
    height: float


def svg(drawing: Drawing, title: str, name: str | None = None, standalone: bool = False) -> Markup:
    """A drawing as an SVG element.

    title: what a screen reader says; empty for decoration. name: its class.
    standalone: carry the colours along, for a file of its own; otherwise the page's style sheet has them.
    """
    return tag(
        "svg",
        tag("title", title) if title else "",
        tag("style", Markup(SVG_STYLE)) if standalone else "",
        drawing.body,
        xmlns="http://www.w3.org/2000/svg" if standalone else None,
        class_=name,
        role="img" if title else None,
        aria_hidden=None if title else "true",
        viewBox=f"0 0 {drawing.width:.0f} {drawing.height:.0f}",
        width=drawing.width,
        height=drawing.height,
    )


def at(drawing: Drawing, x: float, y: float) -> Markup:
    """The drawing moved to (x, y) in another one."""
    return tag("g", drawing.body, transform=f"translate({x:.0f} {y:.0f})")
