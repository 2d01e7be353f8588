"""Samples side by side: a row for each caption, a column for each model, all from the same noise."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.quality.adapters import Deltas, applied
from benchmarks.quality.family import Member, Workshop
from benchmarks.quality.pictures import CAPTIONS
from benchmarks.quality.vae import decode_latents

_SCALE = 5
_GAP = 6
_HEAD = 34
_SIDE = 150


def samples(workshop: Workshop, member: Member, deltas: Deltas | None, captions: Sequence[str], seed: int = 3) -> Tensor:
    """Pictures [n, 3, 16, 16] of a model, with an adapter or without."""
    unet = workshop.unet(member)
    wanted = torch.tensor([CAPTIONS.index(c) for c in captions])
    with applied(unet, deltas) if deltas is not None else nullcontext():
        return decode_latents(workshop.stage.vae, workshop.stage.sample(unet, wanted, member.shape.xl, seed, steps=25))


def draw_grid(path: Path, columns: Sequence[tuple[str, Tensor]], rows: Sequence[str], scale: int = _SCALE) -> None:
    """A PNG with titles; `columns` are (title, pictures), one picture for each of `rows`."""
    from PIL import Image, ImageDraw

    size = columns[0][1].shape[-1] * scale
    step = size + _GAP
    grid = Image.new("RGB", (_SIDE + len(columns) * step, _HEAD + len(rows) * step), "white")
    pen = ImageDraw.Draw(grid)
    for y, text in enumerate(rows):
        pen.text((6, _HEAD + y * step + size // 2 - 6), text, fill="black")
    for x, (title, pictures) in enumerate(columns):
        for line, words in enumerate(title.split("\n")):
            pen.text((_SIDE + x * step, 4 + 14 * line), words, fill="black")
        for y, picture in enumerate(pictures):
            grid.paste(image(picture, scale), (_SIDE + x * step, _HEAD + y * step))
    path.parent.mkdir(parents=True, exist_ok=True)
    grid.save(path, optimize=True)


def image(pixels: Tensor, scale: int = 1) -> Any:
    """Pillow's image of [3, height, width] between -1 and 1."""
    from PIL import Image

    values = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(values).resize((values.shape[1] * scale, values.shape[0] * scale), Image.Resampling.NEAREST)
