"""The parts that every HTML page is made of: one self-contained file, no scripts, nothing fetched."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lorax.render.markup import Markup, join, tag
from lorax.render.style import PAGE_STYLE


def page(title: str, *body: str) -> str:
    """A whole document. `body` goes into ``<main>``."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content="default-src 'none'; style-src 'unsafe-inline'; img-src data: 'self'"),
        tag("title", title),
        tag("style", Markup(PAGE_STYLE)),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', tag('main', *body)), lang='en')}\n"


def section(title: str, *body: str) -> Markup:
    """A heading and what belongs to it."""
    return tag("section", tag("h2", title), *body)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numeric: Sequence[int] = ()) -> Markup:
    """A table; the columns in `numeric` are set right."""
    marks = ["n" if i in numeric else None for i in range(len(head))]
    return tag(
        "table",
        tag("thead", tag("tr", *(tag("th", text, class_=mark, scope="col") for text, mark in zip(head, marks, strict=True)))),
        tag("tbody", *(tag("tr", *(tag("td", c, class_=m) for c, m in zip(row, marks, strict=True))) for row in rows)),
    )


def tile(value: str, label: str, meaning: str) -> Markup:
    """A number with its name and one sentence of what it means."""
    return tag("div", tag("b", value), tag("span", label), tag("p", meaning), class_="tile")


def tiles(*each: Markup) -> Markup:
    return tag("div", *each, class_="tiles")


def definitions(rows: Iterable[tuple[str, str]]) -> Markup:
    """Names and values as a list."""
    return tag("dl", *(join(tag("dt", name), tag("dd", value)) for name, value in rows))


def verdict_card(headline: str, tone: str, *sentences: str) -> Markup:
    """The verdict in words. tone: ``good``, ``weak``, ``bad`` or ``plain``."""
    return tag("div", tag("strong", headline), *(tag("p", s) for s in sentences if s), class_=f"verdict {tone}")


def fold(summary: str, *body: str, opened: bool = False) -> Markup:
    """Details that open on a click."""
    return tag("details", tag("summary", summary), *body, open="" if opened else None)


def code(text: str) -> Markup:
    return tag("code", text)


def paragraph(text: str, quiet: bool = False) -> Markup:
    return tag("p", text, class_="soft small" if quiet else None)
