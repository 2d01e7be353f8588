"""A transfer as one picture in a file of its own: heat map, legend and block map, light or dark by the viewer's system."""

from __future__ import annotations

from lorax.layers import Component
from lorax.render import words
from lorax.render.blockmap import draw_blockmap, stages
from lorax.render.drawing import Drawing, at, svg
from lorax.render.figures import CHANCE, IDENTICAL
from lorax.render.heatmap import HATCH, Cell, draw_heatmap, draw_legend
from lorax.render.html import similarity_cells
from lorax.render.markup import Markup, join, tag
from lorax.transfer.types import TransferReport

MARGIN, GAP = 28, 56
THUMB_TOP = 44
"""What a thumbnail leaves out at the top, px: the panel's title and the groups of columns."""


def to_svg(report: TransferReport) -> str:
    """The picture, without tooltips; text in it is escaped like everywhere."""
    plan = report.plan
    cells = _unet(similarity_cells(report))
    heat = draw_heatmap(cells, tips=False)
    blocks = _blocks(report)
    key = draw_legend(CHANCE, IDENTICAL, any(c.skipped for c in cells), _unknown(cells))
    width = 2 * MARGIN + max(heat.width + (GAP + blocks.width if blocks else 0), key.width, 560)
    top = 92
    height = top + max(heat.height, blocks.height if blocks else 0) + MARGIN
    title = f"{plan.adapter_name} → {plan.target_name}"
    told = f"{words.verdict(plan)[0]} · {words.brief(report)}"
    body = join(
        tag("rect", width=width, height=height, class_="ground"),
        HATCH,
        tag("text", title, x=MARGIN, y=MARGIN + 12, class_="title"),
        tag("text", told, x=MARGIN, y=MARGIN + 31, class_="lab"),
        at(key, MARGIN, MARGIN + 40),
        at(heat, MARGIN, top),
        at(blocks, MARGIN + heat.width + GAP, top) if blocks else "",
    )
    return svg(Drawing(body, width, height), title, standalone=True)


def thumbnail(report: TransferReport, scale: float = 0.62) -> Markup:
    """The heat map alone, small and without tooltips, for a page that has the style sheet; empty where nothing was matched."""
    cells = _unet(similarity_cells(report))
    if not cells:
        return Markup("")
    heat = draw_heatmap(cells, tips=False)
    height = heat.height - THUMB_TOP
    box = f"0 {THUMB_TOP} {heat.width:.0f} {height:.0f}"
    return tag("svg", heat.body, viewBox=box, width=heat.width * scale, height=height * scale, aria_hidden="true")


def _unet(cells: list[Cell]) -> list[Cell]:
    """The UNet's cells, where the adapter has any: text encoders are often equal in both bases and say little."""
    return [c for c in cells if c.layer.component == Component.UNET] or cells


def _unknown(cells: list[Cell]) -> bool:
    return any(c.value is None and not c.skipped for c in cells)


def _blocks(report: TransferReport) -> Drawing | None:
    found = stages(report.plan.units, words.lost_blocks(report.plan))
    shown = [s for s in found if not s.plain and s.kind == "transformer block" and s.source and s.target]
    return draw_blockmap(shown, per_line=3) if shown else None
