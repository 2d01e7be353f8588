"""What a file is, as JSON and terminal text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, cast

from lorax.adapter import Adapter
from lorax.checkpoint import Checkpoint
from lorax.layers import Component, LayerId
from lorax.render.data import unmatched_rows
from lorax.render.grid import place
from lorax.render.terminal import columns
from lorax.render.words import count

SHOWN = 6


def adapter_to_json(adapter: Adapter, hashes: Mapping[str, str]) -> dict[str, Any]:
    """An adapter, as far as its file tells. hashes: of the file, by name."""
    ranks = Counter(str(m.rank) if m.rank is not None else "none" for m in adapter.modules.values())
    hint = adapter.base
    base = {"name": hint.name, "sha256": hint.sha256, "autov1": hint.autov1, "digest": hint.digest}
    return {
        "kind": "adapter",
        "name": adapter.name,
        "path": str(adapter.path) if adapter.path else None,
        "format": adapter.format,
        "family": adapter.family,
        "arch": adapter.arch.name,
        "modules": len(adapter.modules),
        "components": _components(adapter.modules),
        "blocks": _blocks(adapter.modules),
        "kinds": dict(sorted(Counter(m.kind for m in adapter.modules.values()).items())),
        "ranks": dict(sorted(ranks.items(), key=lambda item: (not item[0].isdigit(), int(item[0]) if item[0].isdigit() else 0))),
        "offsets": len(adapter.offsets),
        "needs_base": adapter.needs_base,
        "transferred": adapter.retargeted,
        "native": _native(adapter),
        "base": {key: value for key, value in base.items() if value},
        "hashes": dict(hashes),
        "unmatched": unmatched_rows(adapter.unmatched),
        "notes": list(_adapter_notes(adapter)),
    }


def checkpoint_to_json(checkpoint: Checkpoint, hashes: Mapping[str, str]) -> dict[str, Any]:
    """A base model, as far as its headers tell."""
    return {
        "kind": "checkpoint",
        "name": checkpoint.name,
        "path": "+".join(str(p) for p in checkpoint.paths),
        "format": checkpoint.layout,
        "family": checkpoint.arch.family,
        "arch": checkpoint.arch.name,
        "title": checkpoint.arch.title,
        "prediction_type": checkpoint.prediction_type,
        "dtypes": checkpoint.dtypes,
        "modules": len(checkpoint.layers),
        "components": _components(checkpoint.layers),
        "blocks": _blocks(checkpoint.layers),
        "ranks": {},
        "base": {},
        "hashes": dict(hashes),
        "unmatched": unmatched_rows([(name, "belongs to no layer that we know") for name in checkpoint.unused]),
        "beside": dict(checkpoint.about.counted),
        "notes": list(checkpoint.notes),
    }


def inspection_to_text(document: Mapping[str, Any]) -> str:
    """What `adapter_to_json` or `checkpoint_to_json` gave, for a terminal."""
    adapter = document["kind"] == "adapter"
    lines = [("file", str(document["path"] or document["name"])), ("kind", str(document["kind"]))]
    lines += _adapter_lines(document) if adapter else _checkpoint_lines(document)
    for component, blocks in cast("dict[str, dict[str, int]]", document["blocks"]).items():
        told = ", ".join(f"{stage} {n}" for stage, n in blocks.items())
        lines.append((component, f"{count(document['components'][component], 'module')}: {told}"))
    lines += [(name, value) for name, value in cast("dict[str, str]", document["hashes"]).items()]
    lines += [("note", note) for note in document["notes"]]
    return columns([*lines, *_unmatched(document["unmatched"])])


def _adapter_lines(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    base, native = document["base"], document["native"]
    kinds = ", ".join(f"{kind} {n}" for kind, n in document["kinds"].items())
    ranks = ", ".join(f"{rank} ({n})" for rank, n in document["ranks"].items())
    lines = [
        ("format", f"{document['format']}, names of {document['arch']}"),
        ("family", str(document["family"])),
        ("modules", f"{document['modules']} ({kinds})"),
        ("ranks", ranks),
        ("made for", ", ".join(f"{key} {value}" for key, value in base.items()) or "an unnamed base"),
    ]
    if native:
        lines.append(("LoRA-X", f"k {native['k']}, {native['kind']}, {'self-contained' if native['self_contained'] else 'needs its base'}"))
    return lines


def _checkpoint_lines(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    beside = ", ".join(f"{n} {what}" for what, n in document["beside"].items())
    return [
        ("format", f"{document['format']}, {document['dtypes']}"),
        ("family", f"{document['family']}: {document['title']}"),
        *([("predicts", str(document["prediction_type"]))] if document["prediction_type"] else []),
        ("modules", str(document["modules"])),
        *([("beside", f"tensors {beside}")] if beside else []),
    ]


def _unmatched(unmatched: list[dict[str, str]]) -> list[tuple[str, str]]:
    lines = [("cannot use", f"{row['key']}: {row['reason']}") for row in unmatched[:SHOWN]]
    more = len(unmatched) - SHOWN
    return [*lines, ("cannot use", f"{more} more (see --json)")] if more > 0 else lines


def _native(adapter: Adapter) -> dict[str, Any] | None:
    native = adapter.native
    if native is None:
        return None
    return {"k": native.k, "kind": "diagonal" if native.diagonal else "full", "self_contained": native.self_contained}


def _adapter_notes(adapter: Adapter) -> Iterable[str]:
    if adapter.retargeted:
        yield "made by a transfer: transfer the original instead of this file"
    if adapter.needs_base:
        yield "some modules change the weights of their own base and need it to be used"
    if adapter.offsets:
        yield f"{count(len(adapter.offsets), 'bias or norm offset', 'bias and norm offsets')}: only 'bake' applies them"


def _components(layers: Iterable[LayerId]) -> dict[str, int]:
    found = Counter(layer.component for layer in layers)
    return {str(c): found[c] for c in Component if found[c]}


def _blocks(layers: Iterable[LayerId]) -> dict[str, dict[str, int]]:
    """Modules by component and stage, in order of execution."""
    found: dict[str, dict[str, int]] = {}
    for layer in sorted(layers, key=lambda i: (list(Component).index(i.component), place(i))):
        stages = found.setdefault(str(layer.component), {})
        stage = place(layer).stage
        stages[stage] = stages.get(stage, 0) + 1
    return found
