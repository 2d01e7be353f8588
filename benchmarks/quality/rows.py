"""Rows of results: JSON lines that runs append to, each with the command and the commit that made it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

Key = tuple[str, int, str, str, str, str, str]


@dataclass(frozen=True)
class Row:
    """One figure of the table: one adapter on one target by one way."""

    family: str
    seed: int
    source: str
    target: str
    style: str
    kind: str
    """Of adapter; empty for `none`, which has none."""
    column: str
    loss: float | None = None
    """Held-out loss in the style; None where the way gives nothing."""
    style_accuracy: float | None = None
    content: float | None = None
    frechet: float | None = None
    effect_cosine: float | None = None
    """Between what the adapter changes in the source's predictions and in the target's."""
    note: str = ""
    verdict: str = ""

    @property
    def key(self) -> Key:
        return self.family, self.seed, self.source, self.target, self.style, self.kind, self.column


@dataclass(frozen=True)
class Relatedness:
    """What the weights alone say of a pair of bases."""

    family: str
    seed: int
    source: str
    target: str
    rho: float | None
    """Mean cosine of matched weights of one shape."""
    similarity: float | None
    """Mean Φ̂, the smaller side of each layer."""
    atc: float | None
    """Target uniform, source free; mean of left and right."""
    atc_balanced: float | None
    aligned_rho: float | None = None
    """ρ̂ after alignment, where the project can align."""

    @property
    def key(self) -> tuple[str, int, str, str]:
        return self.family, self.seed, self.source, self.target


FIRST = 100
"""Training steps of the adapters of lines that do not say it."""


class Results:
    """A folder of JSON lines: ``rows.jsonl`` and ``pairs.jsonl``. The last line of a key counts.

    Adapters that were trained for another number of steps belong to a table of their own.
    """

    def __init__(self, folder: Path, steps: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._rows, self._pairs = folder / "rows.jsonl", folder / "pairs.jsonl"
        self.steps = steps
        self.made = {"steps": steps, "command": " ".join(["python -m benchmarks.quality", *sys.argv[1:]]), "commit": commit()}

    def rows(self) -> dict[Key, Row]:
        return {row.key: row for row in self._read(self._rows, Row)}

    def pairs(self) -> dict[tuple[str, int, str, str], Relatedness]:
        return {pair.key: pair for pair in self._read(self._pairs, Relatedness)}

    def others(self) -> list[Results]:
        """The tables of other numbers of steps in the same folder."""
        found = {json.loads(line).get("steps", FIRST) for line in _lines(self._rows)} - {self.steps}
        return [Results(self._rows.parent, steps) for steps in sorted(found)]

    def add(self, item: Row | Relatedness) -> None:
        """Append one line."""
        path = self._rows if isinstance(item, Row) else self._pairs
        values = {name: round(value, 5) if isinstance(value, float) else value for name, value in asdict(item).items()}
        with path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps({**values, **self.made}, ensure_ascii=False) + "\n")

    def _read(self, path: Path, kind: Any) -> Iterator[Any]:
        names = {field.name for field in fields(kind)}
        for values in map(json.loads, _lines(path)):
            if values.get("steps", FIRST) == self.steps:
                yield kind(**{name: value for name, value in values.items() if name in names})


def _lines(path: Path) -> Iterable[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else ()


def commit() -> str:
    """The short commit of this tree, with a + where files differ from it; 'unknown' outside git."""
    here = Path(__file__).parent
    try:
        said = [
            subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()
            for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return said[0] + ("+" if said[1] else "")
