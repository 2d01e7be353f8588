"""The LoRA-X page among the extra-network cards: every adapter that a prompt can name, made of the WebUI's own kind of page."""

# pyright: reportUntypedBaseClass=false

from __future__ import annotations

import html
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Any

from lorax.hosts.base import Forecast, Host, interface, webui
from lorax.library import Entry
from lorax.ui import cards
from lorax.ui.cards_editor import editor_class

TITLE = "LoRA-X"


def page_class(host: Host, page_base: type, editor_base: type) -> type:
    """page_base, editor_base: the WebUI's own classes."""
    made_editor = editor_class(host, editor_base)

    class LoraxPage(page_base):
        """Cards of LoRA-X files and of ordinary LoRAs: all of them follow the checkpoint."""

        def __init__(self) -> None:
            super().__init__(TITLE)

        def refresh(self) -> None:
            """The Refresh button: look at the folders again, and at what was not compared yet."""
            host.service.refresh()
            foresee(host)

        def list_items(self) -> Iterator[dict[str, Any]]:
            entries = named(host)
            found = forecasts(host, list(entries))
            for index, (name, entry) in enumerate(entries.items()):
                yield self._item(name, entry, index) | {"forecast": found[name]}

        def create_item(self, name: str, index: int | None = None, enable_filter: bool = True) -> dict[str, Any] | None:
            entry = named(host).get(name)
            return None if entry is None else self._item(name, entry, index) | {"forecast": forecasts(host, [name])[name]}

        def _item(self, name: str, entry: Entry, index: int | None) -> dict[str, Any]:
            stem = str(entry.path.with_suffix(""))
            item: dict[str, Any] = {
                "name": name,
                "filename": str(entry.path),
                "shorthash": html.escape(entry.shorthash),
                "preview": self._preview(stem, name, entry),
                "description": self.find_description(stem) or self._told(entry),
                "local_preview": f"{stem}.{interface.picture_format()}",
                "metadata": dict(entry.metadata),
                "sort_keys": {"default": index, **self.get_sort_keys(str(entry.path))},
                "sd_version_str": cards.version_of(entry),
            }
            notes = self._notes(item)
            return item | {
                "prompt": cards.prompt_of(name, notes),
                "negative_prompt": cards.negative_of(notes),
                "search_terms": cards.search_terms(entry, notes),
                "made_for": cards.made_for(entry, notes),
            }

        def _notes(self, item: dict[str, Any]) -> dict[str, Any]:
            """The JSON file beside the adapter; one of another program may hold anything."""
            try:
                self.read_user_metadata(item)
            except AttributeError:
                item["user_metadata"] = {}
            return item["user_metadata"]

        def _preview(self, stem: str, name: str, entry: Entry) -> str | None:
            found = self.find_preview(stem)
            if found is None and cards.has_covers(entry.metadata):
                found = self.find_embedded_preview(stem, urllib.parse.quote(name), entry.metadata)
            return found or cards.thumbnail_of(entry)

        def _told(self, entry: Entry) -> str:
            """The file's words, which are never HTML, whatever the user's own descriptions may be."""
            told = cards.description_of(entry)
            return html.escape(told) if interface.descriptions_are_html() else told

        def create_item_html(self, tabname: str, item: dict[str, Any], template: str | None = None) -> Any:
            made = super().create_item_html(tabname, item | {"filename": html.escape(item["filename"])}, template)
            return cards.dress(made, item["made_for"], item["forecast"]) if template and made else made

        def create_tree_file_item_html(self, tabname: str, file_path: str, item: dict[str, Any]) -> str:
            return super().create_tree_file_item_html(tabname, html.escape(file_path), item | {"name": html.escape(item["name"])})

        def allowed_directories_for_previews(self) -> list[str]:
            return [str(folder) for folder in webui.adapter_folders() if folder.is_dir()]

        def create_user_metadata_editor(self, ui: Any, tabname: str) -> Any:
            return made_editor(ui, tabname, self)

    return LoraxPage


def named(host: Host) -> dict[str, Entry]:
    """Every adapter that a prompt can name, by that name."""
    found: dict[str, Entry] = {}
    for entry in host.service.entries():
        if (name := cards.tag_name(entry, host.service)) is not None:
            found.setdefault(name, entry)
    return found


def forecasts(host: Host, names: Sequence[str]) -> dict[str, Forecast | None]:
    """What is known of these on the checkpoint in use; nothing is computed."""
    base, options = host.chosen_base(), host.options()
    return dict.fromkeys(names) if base is None else host.service.forecasts(names, base, options)


def foresee(host: Host) -> None:
    """Find what is not known yet, in the background."""
    base = host.chosen_base()
    if base is not None:
        host.service.foresee(list(named(host)), base, host.options(), interface.idle)


def install(host: Host) -> None:
    """Add the page whenever the WebUI makes its own."""

    def add() -> None:
        interface.add_cards(page_class(host, *interface.card_classes())())

    interface.before_page(add)
