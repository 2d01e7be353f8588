"""A folder of pictures with captions, and in which order they are learned."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lorax.errors import FileError, LoraxError
from lorax.train.packages import load_package

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
LATENTS = 8
"""Sides are multiples of this many latents: a UNet halves them three times."""


@dataclass(frozen=True)
class Picture:
    """One picture and what it shows."""

    path: Path
    caption: str
    size: tuple[int, int]
    """Width and height it is trained at."""


@dataclass(frozen=True)
class Slot:
    """One place in a batch: which picture, and the number that its noise is drawn from."""

    picture: int
    draw: int


def find_pictures(folder: Path, resolution: int, caption: str | None, factor: int = 8) -> list[Picture]:
    """The pictures of a folder and its subfolders, by name. factor: pixels that a latent stands for, along each side.

    LoraxError where there are none, one cannot be read, or one has no caption (a ``.txt`` of the same name, or `caption`).
    """
    if not folder.is_dir():
        raise FileError(f"'{folder}' is no folder: give a folder of pictures, each with a .txt of the same name that describes it.")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise FileError(f"'{folder}' has no pictures: expected {', '.join(SUFFIXES)} files.")
    found = [Picture(path, _caption(path, caption), _size(path, resolution, factor * LATENTS)) for path in paths]
    silent = [p.path.name for p in found if not p.caption]
    if silent:
        raise LoraxError(
            f"no caption for {len(silent)} of {len(found)} pictures, the first is '{silent[0]}': say what it shows in"
            f" '{Path(silent[0]).stem}.txt' beside it, or give one caption for all such pictures with --caption."
        )
    return found


def _caption(path: Path, default: str | None) -> str:
    file = path.with_suffix(".txt")
    try:
        said = file.read_text(encoding="utf-8").strip() if file.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"the caption '{file}' cannot be read as UTF-8 text ({type(error).__name__}): save it as such.") from None
    return " ".join(said.split()) or (default or "")


def _size(path: Path, resolution: int, multiple: int) -> tuple[int, int]:
    """Of the whole picture decoded: a damaged one is better found now than when the base was loaded."""
    width, height = _image(path).size
    return bucket(width, height, resolution, multiple)


def bucket(width: int, height: int, resolution: int, multiple: int = 64) -> tuple[int, int]:
    """The size nearest to the picture's proportions with sides of multiples of `multiple` and about resolution² pixels."""
    ratio = min(max(width / height, 0.25), 4.0)
    across = max(multiple, round(resolution * math.sqrt(ratio) / multiple) * multiple)
    down = max(multiple, round(resolution / math.sqrt(ratio) / multiple) * multiple)
    return across, down


def read_pixels(picture: Picture) -> Tensor:
    """[3, height, width] in −1…1, scaled to cover its size and cut at the centre."""
    width, height = picture.size
    image_module = load_package("PIL.Image")
    image = _image(picture.path).convert("RGB")
    scale = max(width / image.width, height / image.height)
    image = image.resize(
        (max(width, round(image.width * scale)), max(height, round(image.height * scale))), image_module.Resampling.LANCZOS
    )
    left, top = (image.width - width) // 2, (image.height - height) // 2
    values = np.asarray(image.crop((left, top, left + width, top + height)), dtype=np.float32)
    return torch.from_numpy(values / 127.5 - 1.0).permute(2, 0, 1).contiguous()


def _image(path: Path) -> Any:
    """Pillow's image, decoded and the way up that its camera says. Which exceptions a decoder raises is nowhere written."""
    open_image, upright = load_package("PIL.Image").open, load_package("PIL.ImageOps").exif_transpose
    try:
        opened = open_image(path)
    except Exception as error:
        raise FileError(f"'{path}' cannot be read as a picture ({type(error).__name__}): replace it or take it out.") from None
    with opened:
        try:
            opened.load()
            return upright(opened)
        except Exception as error:
            raise FileError(f"the picture '{path}' is damaged ({error}): replace it or take it out.") from None


def batches(pictures: Sequence[Picture], batch_size: int, seed: int) -> Iterator[list[Slot]]:
    """Batches of one size each, without end: every picture once a round, each round in an order of its own.

    A batch that a size cannot fill takes pictures of that size again. The draws number all places in order, so the noise that a
    picture gets does not depend on how many processes share the work.
    """
    sizes: dict[tuple[int, int], list[int]] = {}
    for i, picture in enumerate(pictures):
        sizes.setdefault(picture.size, []).append(i)
    draw, turn = 0, 0
    while True:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + turn)
        full: list[list[int]] = []
        for members in sizes.values():
            order = [members[i] for i in torch.randperm(len(members), generator=generator).tolist()]
            count = -(-len(order) // batch_size)
            filled = [order[i % len(order)] for i in range(count * batch_size)]
            full += [filled[i : i + batch_size] for i in range(0, len(filled), batch_size)]
        for i in torch.randperm(len(full), generator=generator).tolist():
            yield [Slot(picture, draw + j) for j, picture in enumerate(full[i])]
            draw += batch_size
        turn += 1
