"""HTML and SVG as values: a text is escaped when it is put into an element, so nothing from a file can become markup."""

from __future__ import annotations

from html import escape

_VOID = frozenset({"br", "hr", "img", "input", "link", "meta"})


class Markup(str):
    """Text that is markup already and goes into an element as it is."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: str | float | None) -> Markup:
    """``<name attributes>children</name>``; children that are not `Markup` are escaped.

    Attribute names lose a trailing ``_`` (``class_``) and have ``_`` written as ``-``; None leaves the attribute out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_number(value), quote=True)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: str) -> Markup:
    """The children one after another, escaped where they are not `Markup`."""
    return Markup("".join(c if isinstance(c, Markup) else escape(_printable(c), quote=False) for c in children))


def _number(value: str | float) -> str:
    if isinstance(value, str):
        return _printable(value)
    return f"{value:.1f}".removesuffix(".0")


def _printable(text: str) -> str:
    """Control characters and lone surrogates are not allowed in HTML or in UTF-8: shown as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)
