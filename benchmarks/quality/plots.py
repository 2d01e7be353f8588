"""Plots as plain SVG, readable on light and dark pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape

from benchmarks.quality.tables import ORDER, Cell, Group

_LEFT, _WIDTH, _LINE, _TOP = 130, 420, 20, 44
_LOW, _HIGH = -0.6, 1.3
_COLOURS = {"auto": "#2f6fde", "distill": "#b4452c", "trained": "#6b7280", "copy": "#2e8b57"}


def recovered_plot(title: str, groups: Mapping[Group, Mapping[str, Cell]], labels: Mapping[Group, str]) -> str:
    """One panel for each pair, one line for each column: mean and standard deviation of the recovered share."""
    panels: list[str] = []
    y = _TOP
    for group, cells in groups.items():
        shown = [c for c in ORDER if c in cells]
        panels.append(f'<text x="12" y="{y}" font-weight="600">{escape(labels[group])}</text>')
        panels += _axis(y + 8, len(shown))
        panels += [part for i, c in enumerate(shown) for part in _mark(c, cells[c], y + 22 + i * _LINE)]
        y += 22 + len(shown) * _LINE + 34
    width = _LEFT + _WIDTH + 70
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" width="{width}" height="{y}"'
    head += ' font-family="system-ui, sans-serif" font-size="12">'
    ground = f'<rect width="{width}" height="{y}" fill="#ffffff"/>'
    return "\n".join([head, ground, f'<text x="12" y="20" font-size="14" font-weight="600">{escape(title)}</text>', *panels, "</svg>\n"])


def _axis(y: int, lines: int) -> Iterator[str]:
    bottom = y + lines * _LINE + 6
    for share in (-0.5, 0.0, 0.5, 1.0):
        x = _x(share)
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{bottom}" stroke="{"#9ca3af" if share in (0.0, 1.0) else "#e5e7eb"}"/>'
        yield f'<text x="{x:.1f}" y="{bottom + 12}" text-anchor="middle" fill="#6b7280" font-size="10">{share:g}</text>'


def _mark(column: str, cell: Cell, y: int) -> Iterator[str]:
    colour = _COLOURS.get(column, "#4b5563")
    low, high = _x(cell.mean - cell.sd), _x(cell.mean + cell.sd)
    yield f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{escape(column)}</text>'
    yield f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2" stroke-opacity="0.5"/>'
    yield f'<circle cx="{_x(cell.mean):.1f}" cy="{y}" r="4" fill="{colour}"/>'
    yield f'<text x="{_LEFT + _WIDTH + 10}" y="{y + 4}" fill="#374151">{cell.mean:.2f}</text>'


def _x(share: float) -> float:
    """Place of a share; what lies outside the plot stands at its edge, its number tells the truth."""
    inside = min(max(share, _LOW), _HIGH)
    return _LEFT + (inside - _LOW) / (_HIGH - _LOW) * _WIDTH
