"""What two bases have to do with each other, kept on disk: the next adapter between them, or the next switch, reads neither."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lorax.cachelock import claimed
from lorax.checkpoint import Checkpoint
from lorax.device import resolve_device
from lorax.errors import FileError
from lorax.layers import Component, LayerId
from lorax.safefile import write_text
from lorax.tensorindex import file_mark
from lorax.transfer.match import Matching
from lorax.transfer.relate import Relation, alignment_may_help, relate, with_alignment
from lorax.transfer.score import Scores
from lorax.transfer.types import Atc, LayerMatch, LayerScore, Method, Progress, UnitMatch, no_progress

VERSION = "4"
"""Of what a relation holds: raise it when the same bases give other values."""
LONG = 3600.0
"""Seconds after which another process no longer waits for one that compares the same bases."""


def related(
    source: Checkpoint,
    target: Checkpoint,
    layers: Sequence[LayerId],
    device: str = "auto",
    progress: Progress = no_progress,
    method: Method = "auto",
    folder: Path | None = None,
) -> Relation:
    """`lorax.transfer.relate.relate`, from `folder` (None: nowhere) where the same files were compared before.

    Alignments are found anew; the rest is small and is kept.
    """
    mark = relation_mark(source, target, layers, device)
    if folder is None or mark is None:
        return relate(source, target, layers, device, progress, method)
    path = folder / f"{mark}.json"
    relation = read_relation(path)
    if relation is None:
        with claimed(path.with_suffix(".lock"), LONG):
            relation = read_relation(path)
            if relation is None:
                relation = relate(source, target, layers, device, progress, "copy")
                with contextlib.suppress(FileError, OSError):
                    write_text(path, json.dumps(as_json(relation), allow_nan=False), overwrite=True)
    if method == "align" or (method == "auto" and alignment_may_help(source, target, relation)):
        return with_alignment(relation, source, target, layers, device, progress, hurried=method == "auto")
    return relation


def relation_mark(source: Checkpoint, target: Checkpoint, layers: Sequence[LayerId], device: str) -> str | None:
    """What decides about a relation, as 64 hex digits; None where a base has no file that can be told from another."""
    files = [[file_mark(base.file(component)) for component in base.components] for base in (source, target)]
    if any(mark is None for marks in files for mark in marks):
        return None
    content = [VERSION, files, sorted(map(str, layers)), resolve_device(device).type]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def as_json(relation: Relation) -> dict[str, Any]:
    """Of the weights as they are stored."""
    matching, scores = relation.matching, relation.scores
    return {
        "layers": [[_name(m.target), _name(m.source)] for m in matching.layers],
        "units": [asdict(unit) for unit in matching.units],
        "unplaced": [[_name(i), reason] for i, reason in matching.unplaced.items()],
        "scores": [[_name(i), asdict(score)] for i, score in scores.layers.items()],
        "atc": None if scores.atc is None else asdict(scores.atc),
    }


def read_relation(path: Path) -> Relation | None:
    """None where the file is missing, or is not what was written."""
    try:
        told: Any = json.loads(path.read_text(encoding="utf-8"))
        matching = Matching(
            tuple(LayerMatch(_layer(t), _layer(s)) for t, s in told["layers"]),
            tuple(UnitMatch(**unit) for unit in told["units"]),
            {_layer(i): str(reason) for i, reason in told["unplaced"]},
        )
        scores = {_layer(i): LayerScore(**score) for i, score in told["scores"]}
        return Relation(matching, Scores(scores, None if told["atc"] is None else Atc(**told["atc"])))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _name(layer: LayerId) -> list[str]:
    return [layer.component.value, layer.path]


def _layer(name: Sequence[str]) -> LayerId:
    component, path = name
    return LayerId(Component(component), path)
