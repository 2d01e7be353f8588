"""Every text that the page shows has its translation, in files as the WebUIs read them."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lorax.hosts.base import SETTINGS
from lorax.ui import accordion, cards, choices

ROOT = Path(__file__).parents[2]
SHOWN = {"label", "info", "placeholder"}
"""Arguments of widgets that hold a text."""
TITLED = {"Accordion", "Button", "Tab", "TabItem", "Markdown", "DownloadButton"}
"""Widgets whose first argument is a text."""
FILES = sorted((ROOT / "localizations").glob("*.json"))


def constants(node: ast.AST) -> Iterator[str]:
    """The text of an argument, or both of a choice of two."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from constants(node.body)
        yield from constants(node.orelse)


def widget_texts(source: str) -> Iterator[str]:
    """What the calls of ``gr.…`` in a module show."""
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        function = call.func
        if not (isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == "gr"):
            continue
        shown = [k.value for k in call.keywords if k.arg in SHOWN or (k.arg == "value" and function.attr in TITLED)]
        for argument in (*shown, *(call.args[:1] if function.attr in TITLED else ())):
            yield from (text for text in constants(argument) if text.strip())


def standing_texts(source: str) -> Iterator[str]:
    """What a module's constants show until there is a result, and its paragraphs."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in ("EMPTY", "DISTILL"):
            yield re.sub(r"<[^>]+>", "", ast.literal_eval(node.value))


def texts() -> set[str]:
    """Everything that the extension shows in a WebUI and that is not made up of names and numbers."""
    found = {text for path in (ROOT / "lorax" / "ui").glob("*.py") for text in widget_texts(path.read_text(encoding="utf-8"))}
    found |= {text for path in (ROOT / "lorax" / "ui").glob("*.py") for text in standing_texts(path.read_text(encoding="utf-8"))}
    for setting in SETTINGS:
        found |= {setting.label, *setting.choices} | ({f"({setting.info})"} if setting.info else set())
    found |= {label for label, _, _ in cards.BADGES.values()} | {cards.CHECKING[0], cards.CHECKING[2], cards.UNKNOWN_BASE}
    return found | {accordion.TITLE, accordion.AS_SET, *choices.METHODS}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_translation_is_whole_and_has_nothing_else(path: Path) -> None:
    translated = json.loads(path.read_text(encoding="utf-8"))
    assert sorted(texts() - translated.keys()) == []
    assert sorted(translated.keys() - texts() - set(script_texts())) == [], "these are shown nowhere"
    assert [text for text, said in translated.items() if not said.strip() or "<script" in said] == []


def script_texts() -> Iterator[str]:
    """Constants of the page's scripts: what they show is among them."""
    for path in (ROOT / "javascript").glob("*.js"):
        yield from path.read_text(encoding="utf-8").split('"')[1::2]


def test_there_is_one() -> None:
    assert [path.stem for path in FILES] == ["de_DE"]
