"""What cards say, what a click inserts, and that a stranger's words stay words."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lorax.hosts.base import Forecast, KnownBase, RetargetOptions, interface, webui
from lorax.library import Entry, Library
from lorax.safefile import write_safetensors
from lorax.ui import cards, cards_badges
from lorax.ui.cards_editor import editor_class
from lorax.ui.cards_page import named, page_class

EVIL = "<script>alert('1')</script>\"><img src=x onerror=alert(2)>"
CARD = '<div class="card" style="" onclick="{onclick}" data-name="{name}">\n<div class="actions"><b>{name}</b>{terms}{text}</div>\n</div>\n'


class Service:
    """Adapters of a folder, with forecasts that are set."""

    def __init__(self, *folders: Path) -> None:
        self.library = Library(folders)
        self.found: dict[str, Forecast] = {}
        self.asked: list[list[str]] = []

    def entries(self) -> Any:
        self.library.refresh()
        return self.library.entries()

    def find(self, name: str) -> Entry:
        return self.library.find(name)

    def refresh(self) -> None:
        self.library.refresh()

    def forecasts(self, names: Any, base: Any, options: Any) -> dict[str, Forecast | None]:
        return {name: self.found.get(name) for name in names}

    def foresee(self, names: Any, base: Any, options: Any, idle: Any) -> None:
        self.asked.append(list(names))


class Host:
    def __init__(self, *folders: Path) -> None:
        self.service = Service(*folders)

    def chosen_base(self) -> KnownBase:
        return KnownBase(Path("b.safetensors"))

    def options(self) -> RetargetOptions:
        return RetargetOptions()


class Page:
    """The methods of the WebUI's page that ours calls, with the same trust in what it is given."""

    def __init__(self, title: str) -> None:
        self.title, self.items = title, {}

    def read_user_metadata(self, item: dict[str, Any]) -> None:
        path = Path(item["filename"]).with_suffix(".json")
        notes = json.loads(path.read_text()) if path.exists() else {}
        item["user_metadata"] = notes
        if notes.get("description") is not None:
            item["description"] = notes["description"]

    def find_preview(self, path: str) -> str | None:
        return None

    def find_description(self, path: str) -> str | None:
        return None

    def get_sort_keys(self, path: str) -> dict[str, Any]:
        return {"name": Path(path).name.lower()}

    def create_item_html(self, tabname: str, item: dict[str, Any], template: str | None = None) -> str:
        terms = "".join(f"<span class='hidden search_terms'>{term}</span>" for term in item["search_terms"])
        click = html.escape(f"cardClicked('{tabname}', {item['prompt']}, {item['negative_prompt']}, false);")
        copy = f'<i data-clipboard-text="{item["filename"]}" data-hash="{item["shorthash"]}"></i>'
        return CARD.format(onclick=click, name=html.escape(item["name"]), terms=terms + copy, text=html.escape(item["description"]))

    def create_tree_file_item_html(self, tabname: str, file_path: str, item: dict[str, Any]) -> str:
        return f'<li data-path="{file_path}">{item["name"]}</li>'


class Parsed(HTMLParser):
    """Which elements there are, with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    @property
    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}


def adapter(folder: Path, name: str, metadata: Mapping[str, str] | None = None) -> Path:
    import torch

    path = folder / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_safetensors(path, {"lora_unet_x.alpha": torch.zeros(1)}, metadata or {}, overwrite=True)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(webui, "adapter_folders", lambda: (tmp_path,))
    monkeypatch.setattr(interface, "picture_format", lambda: "png")
    monkeypatch.setattr(interface, "descriptions_are_html", lambda: False)
    monkeypatch.setattr(interface, "idle", lambda: True)
    return tmp_path


def test_a_click_inserts_a_tag_that_names_this_file(folder: Path) -> None:
    adapter(folder / "one", "style")
    adapter(folder / "two", "style")
    adapter(folder, "a, b", {"sshs_model_hash": "0123456789abcdef"})
    adapter(folder, "x: y>")
    host = Host(folder)
    found = named(host)
    assert sorted(found) == ["0123456789ab", "one/style", "style"] or sorted(found) == ["0123456789ab", "style", "two/style"]
    for name, entry in found.items():
        assert host.service.find(name).path == entry.path


def test_the_prompt_is_javascript() -> None:
    assert cards.prompt_of("style", {}) == '"<lorax:style:" + opts.extra_networks_default_multiplier + ">"'
    assert cards.prompt_of("style", {"preferred weight": 0.8, "activation text": 'ink "wash"\nline'}) == (
        '"<lorax:style:" + "0.8" + ">" + " ink \\"wash\\"\\nline"'
    )
    assert cards.prompt_of("style", {"preferred weight": "much"}) == cards.prompt_of("style", {})
    assert cards.negative_of({"negative text": "blur"}) == '"blur"'


@pytest.mark.parametrize(
    ("metadata", "notes", "said"),
    [
        ({"ss_sd_model_name": "C:\\models\\v1-5.ckpt"}, {}, "for v1-5"),
        ({"ss_sd_model_name": "v1-5.ckpt", "lorax.target_base": "ssd-1b"}, {}, "for ssd-1b"),
        ({"ss_sd_model_name": "v1-5.ckpt"}, {"lorax source": "dream.safetensors"}, "for dream"),
        ({"ss_sd_model_name": "None"}, {}, "base not named"),
    ],
)
def test_the_base_that_it_was_made_for(folder: Path, metadata: dict[str, str], notes: dict[str, str], said: str) -> None:
    adapter(folder, "style", metadata)
    assert cards.made_for(Host(folder).service.entries()[0], notes) == said


def test_cards_of_files_full_of_html_hold_text(folder: Path) -> None:
    keys = ("ss_sd_model_name", "modelspec.description", "ss_output_name", "sshs_model_hash", "modelspec.trigger_phrase")
    evil = dict.fromkeys(keys, EVIL)
    path = adapter(folder, "<b onmouseover=alert(3)>", {**evil, "modelspec.thumbnail": 'data:image/png;base64,"><script>'})
    adapter(folder, "style", {**evil, "ssmd_cover_images": "{"})
    path.with_name("style.json").write_text(json.dumps({"activation text": EVIL, "description": EVIL, "negative text": EVIL}))
    host = Host(folder)
    host.service.found["style"] = Forecast(EVIL, EVIL)
    page = page_class(host, Page, object)()
    items = list(page.list_items())
    assert len(items) == 1, "the other name cannot stand in a prompt"
    assert items[0]["preview"] is None
    made = page.create_item_html("txt2img", items[0], CARD)
    assert Parsed(made).tags == {"div", "b", "span", "i"}
    card = Parsed(made).elements[0][1]
    assert card["onclick"] is not None
    assert json.dumps(" " + EVIL) in card["onclick"]
    assert (card["tabindex"], card["role"]) == ("0", "button")
    assert "script" not in Parsed(page.create_tree_file_item_html("txt2img", f"/{EVIL}", items[0] | {"name": EVIL})).tags


def test_a_description_in_the_file_is_no_html_even_where_the_users_own_are(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter(folder, "style", {"modelspec.description": EVIL})
    monkeypatch.setattr(interface, "descriptions_are_html", lambda: True)
    item = page_class(Host(folder), Page, object)().create_item("style")
    assert item["description"] == html.escape(EVIL)


def test_a_sidecar_of_another_program_does_no_harm(folder: Path) -> None:
    adapter(folder, "style").with_suffix(".json").write_text("[1, 2]")
    item = page_class(Host(folder), Page, object)().create_item("style")
    assert item["prompt"] == cards.prompt_of("style", {})
    assert page_class(Host(folder), Page, object)().create_item("../style") is None


def test_a_thumbnail_is_a_picture_of_a_kind_without_scripts(folder: Path) -> None:
    for said, shown in (("data:image/png;base64,AAAA", True), ("data:image/svg+xml;base64,AAAA", False), ("javascript:alert(1)", False)):
        adapter(folder, "style", {"modelspec.thumbnail": said})
        assert (cards.thumbnail_of(Library([folder])._scan().__next__()) == said) is shown


def test_the_badge_says_it_in_words() -> None:
    assert ">Checking…<" in cards.badge(None)
    for verdict, (label, tone, sentence) in cards.BADGES.items():
        made = cards.badge(Forecast(verdict, "because"))
        assert f">{label}<" in made
        assert f"lorax-{tone}" in made
        assert f'{html.escape(sentence)} Because."' in made


def test_only_news_is_sent_and_what_is_missing_is_looked_for(folder: Path) -> None:
    adapter(folder, "ink")
    adapter(folder, "style")
    host = Host(folder)
    host.service.found["ink"] = Forecast("weak", "far apart")
    first = cards_badges.badges(host)
    assert first["pending"] == 1
    assert set(first["badges"]) == {"ink", "style"}
    assert host.service.asked == [["ink", "style"]]
    assert "badges" not in cards_badges.badges(host, first["state"])
    host.service.found["style"] = Forecast("should work", "close")
    second = cards_badges.badges(host, first["state"])
    assert second["pending"] == 0
    assert re.search(r'data-verdict="should work"', second["badges"]["style"])
    assert len(host.service.asked) == 2


def test_badges_are_behind_the_pages_login() -> None:
    class App:
        auth: Any = None
        tokens: Mapping[str, str] = {"secret": "user"}

    assert cards_badges.logged_in({}, App())
    guarded = App()
    guarded.auth = {"user": "password"}
    assert not cards_badges.logged_in({"access-token": "guess"}, guarded)
    assert cards_badges.logged_in({"access-token-abc": "secret"}, guarded)


def test_the_editor_keeps_what_it_does_not_show_and_writes_only_cards(folder: Path) -> None:
    written: list[tuple[str, dict[str, Any]]] = []

    class Editor:
        def __init__(self) -> None:
            self.page = Page("x")
            self.page.items = {"style": {"user_metadata": {"sd version": "SD1", "lorax source": "old"}}}

        def get_user_metadata(self, name: str) -> dict[str, Any]:
            return self.page.items[name]["user_metadata"]

        def write_user_metadata(self, name: str, notes: dict[str, Any]) -> None:
            written.append((name, notes))

        def get_metadata_table(self, name: str) -> list[tuple[str, str | None]]:
            return [("Filename: ", EVIL), ("Hash: ", None)]

    editor = editor_class(Host(folder), Editor)()
    editor.save("../style", "x", "words", 0.8, "", "a", "")
    assert written == []
    editor.save("style", "mine", "words", 0.8, "", "", "")
    assert written == [("style", {"sd version": "SD1", "description": "mine", "activation text": "words", "preferred weight": 0.8})]
    assert editor.get_metadata_table("style") == [("Filename: ", html.escape(EVIL))]
