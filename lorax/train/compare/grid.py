"""Pictures side by side, with what they are above and beside them."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lorax.errors import one_line
from lorax.safefile.write import replacing
from lorax.train.packages import load_package

CELL = 128, 512
"""Smallest and largest width of a picture in the grid: small models' are enlarged, so that they can be seen."""
MARGIN = 8
LEFT = 168
"""Width of the column with the prompts"""
LINE = 16


def draw_grid(title: str, heads: Sequence[tuple[str, str]], rows: Sequence[tuple[str, Sequence[Any]]]) -> Any:
    """A picture (PIL). heads: two lines above each column; rows: the text at the left and a picture (PIL) for each column."""
    images, drawing = load_package("PIL.Image"), load_package("PIL.ImageDraw")
    first = rows[0][1][0]
    width = min(CELL[1], max(CELL[0], first.width))
    height = max(1, round(first.height * width / first.width))
    top = MARGIN + LINE * 4
    size = LEFT + (width + MARGIN) * len(heads) + MARGIN, top + (height + MARGIN) * len(rows)
    grid = images.new("RGB", size, "white")
    pen, font = drawing.Draw(grid), _font()
    pen.text((MARGIN, MARGIN), one_line(title), fill="black", font=font)
    for x, (name, figure) in enumerate(heads):
        left = LEFT + x * (width + MARGIN)
        pen.text((left, MARGIN + LINE * 3 // 2), name, fill="black", font=font)
        pen.text((left, MARGIN + LINE * 5 // 2), figure, fill="#555555", font=font)
    for y, (text, pictures) in enumerate(rows):
        above = top + y * (height + MARGIN)
        wrapped = textwrap.wrap(one_line(text), 24)[: max(1, height // LINE)]
        pen.multiline_text((MARGIN, above), "\n".join(wrapped), fill="black", font=font, spacing=2)
        for x, picture in enumerate(pictures):
            sharp = images.Resampling.NEAREST if picture.width < width else images.Resampling.LANCZOS
            grid.paste(picture.convert("RGB").resize((width, height), sharp), (LEFT + x * (width + MARGIN), above))
    return grid


def write_picture(path: Path, picture: Any, overwrite: bool) -> None:
    """As PNG, whole or not at all."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    content = buffer.getvalue()
    with replacing(path, overwrite=overwrite, size=len(content)) as write:
        write(content)


def _font() -> Any:
    fonts = load_package("PIL.ImageFont")
    try:
        return fonts.load_default(12)
    except TypeError:  # Pillow < 10.1 has one size
        return fonts.load_default()
