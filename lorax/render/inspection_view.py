"""What a file is, for a panel: facts, what it was trained on, where it is strong, and its metadata as plain text."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, cast

from lorax.layers import LayerId
from lorax.render.figures import map_figure
from lorax.render.heatmap import Cell
from lorax.render.markup import Markup, join, tag
from lorax.render.page import code, definitions, fold, paragraph, section, table, verdict_card
from lorax.render.views import view
from lorax.render.words import count, sentence

LONG = 300
"""Letters of a metadata value that are shown before it is folded."""
TAGS = 14

TRAINED = (
    ("ss_sd_model_name", "base"),
    ("ss_base_model_version", "kind of base"),
    ("ss_num_train_images", "pictures"),
    ("ss_resolution", "resolution"),
    ("ss_num_epochs", "epochs"),
    ("ss_steps", "steps"),
    ("ss_learning_rate", "learning rate"),
    ("lorax.source_base", "made by a transfer from"),
    ("lorax.target_base", "made for"),
)
"""Metadata that says how an adapter came about, and what to call it."""


def inspection_view(document: Mapping[str, Any], metadata: Mapping[str, str], strengths: Mapping[LayerId, float | None]) -> str:
    """document: of `adapter_to_json` or `checkpoint_to_json`. metadata: of the file. strengths: see `lorax.actions.strength`."""
    adapter = document["kind"] == "adapter"
    return view(
        verdict_card(str(document["name"]), "plain", _headline(document)),
        definitions(_facts(document)),
        _trained(document, metadata) if adapter else "",
        _picture(strengths, adapter),
        _notes(document),
        _unmatched(document),
        _metadata(metadata),
    )


def _headline(document: Mapping[str, Any]) -> str:
    if document["kind"] != "adapter":
        return sentence(f"a base model of the family {document['family']}: {document['title']}")
    native = document["native"]
    what = "a LoRA-X adapter" if native else "an adapter"
    return sentence(f"{what} for {document['family']}, {count(document['modules'], 'module')}")


def _facts(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("format", f"{document['format']}, names of {document['arch']}"),
        ("numbers stored as", str(document.get("dtypes") or "")),
        ("predicts", str(document.get("prediction_type") or "")),
        ("kinds", ", ".join(f"{kind} {n}" for kind, n in document.get("kinds", {}).items())),
        ("ranks", ", ".join(f"{rank} ({n})" for rank, n in document["ranks"].items())),
        ("LoRA-X", _native(document.get("native"))),
    ]
    for component, blocks in cast("dict[str, dict[str, int]]", document["blocks"]).items():
        rows.append((component, ", ".join(f"{stage} {n}" for stage, n in blocks.items())))
    rows += [(name, value) for name, value in cast("dict[str, str]", document["hashes"]).items()]
    return [(name, value) for name, value in rows if value]


def _native(native: Mapping[str, Any] | None) -> str:
    if native is None:
        return ""
    return f"k {native['k']}, {native['kind']}, {'self-contained' if native['self_contained'] else 'needs its base'}"


def _trained(document: Mapping[str, Any], metadata: Mapping[str, str]) -> Markup:
    base = [(f"base, {name}", value) for name, value in cast("dict[str, str]", document["base"]).items()]
    rows = base + [(title, metadata[key]) for key, title in TRAINED if metadata.get(key) not in (None, "", "None")]
    words = _tags(metadata.get("ss_tag_frequency", ""))
    if words:
        rows.append(("most frequent words", ", ".join(words)))
    rows = list(dict.fromkeys(rows))
    return section("What it was trained on", definitions(rows) if rows else paragraph("The file does not say."))


def _tags(text: str) -> list[str]:
    """The commonest words of captions, as kohya's trainer counts them by folder; nothing where the value is anything else."""
    try:
        folders: Any = json.loads(text)
        counted: Counter[str] = Counter()
        for folder in folders.values():
            counted.update({str(word).strip(): int(n) for word, n in folder.items()})
    except (ValueError, TypeError, AttributeError, RecursionError):
        return []
    return [word for word, _ in counted.most_common(TAGS)]


EXPLAIN = {
    True: "Each cell is one layer: how large the adapter's change is, against its own strongest layer.",
    False: "Each cell is one layer: how large its weights are, against the layer with the largest.",
}


def _picture(strengths: Mapping[LayerId, float | None], adapter: bool) -> Markup:
    most = max((value for value in strengths.values() if value is not None), default=0.0)
    if not most:
        return Markup("")
    unit = "‖ΔW‖" if adapter else "root mean square"

    def cell(layer: LayerId, value: float | None) -> Cell:
        told = "needs its base" if value is None else f"{unit} {value:.4g}"
        return Cell(layer, None if value is None else value / most, f"{layer}\n{told}")

    figure = map_figure([cell(*item) for item in strengths.items()], "map", "Strength by layer", "0", "the strongest layer")
    return section("Where it is strong", paragraph(f"{EXPLAIN[adapter]} Rest the pointer on a cell for its number.", quiet=True), figure)


def _notes(document: Mapping[str, Any]) -> Markup:
    notes = cast("list[str]", document["notes"])
    return tag("ul", *(tag("li", sentence(note)) for note in notes), class_="notes") if notes else Markup("")


def _unmatched(document: Mapping[str, Any]) -> Markup:
    found = cast("list[dict[str, str]]", document["unmatched"])
    if not found:
        return Markup("")
    listing = table(("key in the file", "why it cannot be used"), [(code(row["key"]), row["reason"]) for row in found])
    return section("What cannot be used", fold(count(len(found), "key"), listing))


def _metadata(metadata: Mapping[str, str]) -> Markup:
    if not metadata:
        return section("Metadata", paragraph("The file has none."))
    rows = [(code(key), _value(metadata[key])) for key in sorted(metadata)]
    return section("Metadata", fold(count(len(rows), "entry", "entries"), table(("key", "value"), rows)))


def _value(text: str) -> str:
    return text if len(text) <= LONG else join(text[:LONG] + "… ", fold(f"{len(text)} letters", tag("p", text)))
