"""The layer heat map as inline SVG: rows are blocks in order of execution, columns are roles, one panel per component."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from lorax.layers import LayerId
from lorax.render.drawing import Drawing, svg
from lorax.render.grid import COLUMN_ORDER, COLUMNS, COMPONENT_TITLES, Place, place
from lorax.render.markup import Markup, join, tag
from lorax.render.style import STEPS

WIDTH, HEIGHT, GAP = 22, 13, 2
"""Cell size and the gap between cells, px."""
GROUP_GAP, STAGE_GAP = 10, 9
LABELS = 84
"""Room for the names of stage and row."""
HEAD = 58
"""Room for the panel's title and the column names."""
PANEL_GAP = 44


@dataclass(frozen=True)
class Cell:
    """One layer of the map."""

    layer: LayerId
    value: float | None
    """0 to 1; None where nothing was measured."""
    tip: str
    """What the tooltip says."""
    skipped: bool = False


def heatmap(cells: Sequence[Cell], title: str, standalone: bool = False) -> Markup:
    """The map of all cells.

    title: what a screen reader says.
    standalone: carry the colours along, for a file of its own; otherwise the page's style sheet has them.
    """
    drawing = draw_heatmap(cells)
    return svg(Drawing(join(HATCH, drawing.body), drawing.width, drawing.height), title, "heat", standalone)


def draw_heatmap(cells: Sequence[Cell], tips: bool = True) -> Drawing:
    """The map without a frame. tips: give every cell its tooltip."""
    shown = cells if tips else [replace(c, tip="") for c in cells]
    return _arrange([_panel(name, list(group)) for name, group in groupby(_sorted(shown), key=lambda c: str(c.layer.component))])


def draw_legend(low: str, high: str, skipped: bool, unknown: bool) -> Drawing:
    """The colour scale in words and swatches."""
    x, parts = 0.0, [tag("text", low, x=0, y=11, class_="lab")]
    x += 9 + 5.2 * len(low)
    for i in range(STEPS):
        parts.append(tag("rect", class_=f"h{i}", x=x, y=1, width=WIDTH - 4, height=12))
        x += WIDTH - 4
    parts.append(tag("text", high, x=x + 7, y=11, class_="lab"))
    x += 26 + 6.3 * len(high)
    for show, mark, text in ((skipped, "skip", "left out"), (unknown, "none", "not measured")):
        if show:
            parts.append(tag("rect", class_=mark, x=x, y=1, width=WIDTH, height=12))
            parts.append(tag("text", text, x=x + WIDTH + 6, y=11, class_="lab"))
            x += WIDTH + 22 + 6.3 * len(text)
    return Drawing(join(*parts), x, 15)


HATCH = tag(
    "defs",
    tag(
        "pattern",
        tag("rect", width=6, height=6, class_="hatch-ground"),
        tag("path", d="M-1 1 L1 -1 M0 6 L6 0 M5 7 L7 5", class_="hatch-line"),
        id="hatch",
        width=6,
        height=6,
        patternUnits="userSpaceOnUse",
    ),
)


def _sorted(cells: Sequence[Cell]) -> list[Cell]:
    order = list(COMPONENT_TITLES)
    return sorted(cells, key=lambda c: order.index(str(c.layer.component)))


def _arrange(panels: Sequence[Drawing]) -> Drawing:
    """The first panel on the left, the others stacked beside it."""
    placed: list[Markup] = []
    x = y = width = height = 0.0
    for i, panel in enumerate(panels):
        if i == 1:
            x, y = panels[0].width + PANEL_GAP, 0.0
        placed.append(tag("g", panel.body, transform=f"translate({x:.0f} {y:.0f})"))
        y += panel.height + 26
        width, height = max(width, x + panel.width), max(height, y - 26)
    return Drawing(join(*placed), width, height)


def _panel(component: str, cells: Sequence[Cell]) -> Drawing:
    places = [(place(c.layer), c) for c in cells]
    columns = _column_positions([p.column for p, _ in places])
    rows, stages, height = _row_positions([p for p, _ in places])
    right = max(columns.values()) + WIDTH
    parts: list[Markup] = [tag("text", COMPONENT_TITLES[component], class_="head", x=0, y=14), *_column_heads(columns)]
    for stage, (top, bottom) in stages.items():
        parts.append(tag("text", stage, class_="stage", x=0, y=top + HEIGHT - 3))
        parts.append(tag("line", class_="rule", x1=LABELS - 6, x2=LABELS - 6, y1=top, y2=bottom))
    for (label, _), y in rows.items():
        parts.append(tag("text", label, class_="lab end", x=LABELS - 12, y=y + HEIGHT - 3))
    for spot, cell in places:
        parts.append(_rect(cell, columns[spot.column], rows[_row_key(spot)]))
    return Drawing(join(*parts), right, height)


def _rect(cell: Cell, x: float, y: float) -> Markup:
    name = "skip" if cell.skipped else "none" if cell.value is None else f"h{step(cell.value)}"
    return tag("rect", tag("title", cell.tip) if cell.tip else "", class_=name, x=x, y=y, width=WIDTH, height=HEIGHT)


def step(value: float) -> int:
    """The colour step of a value between 0 and 1."""
    return min(STEPS - 1, max(0, int(value * STEPS)))


def _row_key(spot: Place) -> tuple[str, tuple[tuple[int, int], tuple[int, int]]]:
    return spot.label, (spot.stage_order, spot.row)


def _column_positions(found: Sequence[str]) -> dict[str, float]:
    ordered = sorted(set(found), key=lambda c: (COLUMN_ORDER.get(c, len(COLUMN_ORDER)), c))
    positions: dict[str, float] = {}
    x, before = float(LABELS), None
    for column in ordered:
        group = COLUMNS.get(column, ("other", ""))[0]
        if before is not None:
            x += WIDTH + GAP + (GROUP_GAP if group != before else 0)
        positions[column], before = x, group
    return positions


_Rows = dict[tuple[str, tuple[tuple[int, int], tuple[int, int]]], float]


def _row_positions(places: Sequence[Place]) -> tuple[_Rows, dict[str, tuple[float, float]], float]:
    rows: _Rows = {}
    stages: dict[str, tuple[float, float]] = {}
    y, before = float(HEAD), None
    for spot in sorted(places, key=lambda p: (p.stage_order, p.row, p.label)):
        key = _row_key(spot)
        if key in rows:
            continue
        if before is not None and spot.stage != before:
            y += STAGE_GAP
        rows[key], before = y, spot.stage
        stages[spot.stage] = (stages.get(spot.stage, (y, y))[0], y + HEIGHT)
        y += HEIGHT + GAP
    return rows, stages, y


def _column_heads(columns: dict[str, float]) -> list[Markup]:
    parts: list[Markup] = []
    for group, members in groupby(columns.items(), key=lambda item: COLUMNS.get(item[0], ("other", ""))[0]):
        spots = list(members)
        left, right = spots[0][1], spots[-1][1] + WIDTH
        parts.append(tag("text", group, class_="group mid", x=(left + right) / 2, y=HEAD - 23))
        parts.append(tag("line", class_="rule", x1=left, x2=right, y1=HEAD - 18, y2=HEAD - 18))
        for column, x in spots:
            name = COLUMNS.get(column, ("", column.rsplit(".", 1)[-1][:4]))[1]
            parts.append(tag("text", name, class_="lab mid", x=x + WIDTH / 2, y=HEAD - 6))
    return parts
