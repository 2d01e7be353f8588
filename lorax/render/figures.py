"""The pictures of a page with what has to be said about them."""

from __future__ import annotations

from collections.abc import Sequence

from lorax.render import words
from lorax.render.blockmap import Stage, blockmap, stages
from lorax.render.drawing import Drawing, svg
from lorax.render.heatmap import HATCH, Cell, draw_legend, heatmap
from lorax.render.markup import Markup, join, tag
from lorax.render.page import paragraph, section
from lorax.transfer.types import UnitMatch

HOW_TO_READ = (
    "Each cell is one layer of the target: rows run through the network from first to last, columns are the parts of a block. "
    "Rest the pointer on a cell for its numbers and its reason."
)
CHANCE, IDENTICAL = "0 · as good as unrelated", "1 · identical"


def map_figure(cells: Sequence[Cell], name: str, title: str, low: str = CHANCE, high: str = IDENTICAL) -> Markup:
    """A heat map under its legend. name: class of the figure."""
    skipped = any(c.skipped for c in cells)
    unknown = any(c.value is None and not c.skipped for c in cells)
    key = draw_legend(low, high, skipped, unknown)
    caption = tag("figcaption", svg(Drawing(join(HATCH, key.body), key.width, key.height), "", "legend"))
    return tag("figure", caption, heatmap(cells, title), class_=name)


def block_map_section(units: Sequence[UnitMatch], lost: Sequence[str]) -> Markup:
    """Which block became which; nothing where blocks were taken by name."""
    title = "Which block became which"
    found = stages(units, lost)
    if not found:
        return Markup("")
    shown = [s for s in found if not s.plain and s.source and s.target]
    gone = _without_partner(found)
    if not shown and not gone:
        return section(title, paragraph("Every block of the target was matched with the source's block of its own name."))
    same = sum(len(s.target) for s in found if s.plain)
    rest = f" The other {words.count(same, 'block')} went to the block of the same name." if same else ""
    return section(
        title,
        paragraph(
            "Source on the left, target on the right; matched by the weights themselves, never by name alone. "
            f"A dashed box has no partner.{rest}",
            quiet=True,
        ),
        tag("ul", *(tag("li", line) for line in gone), class_="notes") if gone else "",
        tag("figure", blockmap(shown, "Block map: source blocks on the left, target blocks on the right")) if shown else "",
    )


def _without_partner(found: Sequence[Stage]) -> list[str]:
    """Whole stages that only one side has, a sentence for each side."""
    dropped = [f"{s.title} ({words.count(len(s.source), s.kind)})" for s in found if not s.target]
    unfed = [f"{s.title} ({words.count(len(s.target), s.kind)})" for s in found if not s.source]
    lines: list[str] = []
    if dropped:
        lines.append(f"Only the source has: {', '.join(dropped)}. What the adapter holds for them is left out.")
    if unfed:
        lines.append(f"Only the target has: {', '.join(unfed)}. They stay as they are.")
    return lines
