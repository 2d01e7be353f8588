"""Generated captioned pictures: a coloured shape in one corner, in two domains and several styles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

SIZE = 16
COLOURS = ("red", "green", "blue", "yellow", "magenta", "cyan")
SHAPES = ("circle", "square", "triangle", "cross")
PLACES = ("northwest", "northeast", "southwest", "southeast")
CAPTIONS = tuple(" ".join(words) for words in product(COLOURS, SHAPES, PLACES))

STYLES = ("plain", "hue", "stripes", "outline", "frame", "dots")
"""``plain`` is what bases learn; an adapter teaches one of the others."""
TABLE_STYLES = ("hue", "stripes", "outline")
"""Those of the published tables."""
TUNING_STYLES = ("frame", "dots")
"""Those that choices were made on."""
DOMAINS = ("light", "dark")
"""What bases are trained on, and what a fine-tune moves to."""

_RGB = torch.tensor([[0.9, 0.15, 0.15], [0.15, 0.75, 0.2], [0.2, 0.3, 0.95], [0.95, 0.85, 0.15], [0.85, 0.2, 0.85], [0.1, 0.8, 0.85]])
_CENTRES = torch.tensor([[-0.4, -0.4], [0.4, -0.4], [-0.4, 0.4], [0.4, 0.4]])
_BATCH = 512


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures with what their captions say."""

    pixels: Tensor
    """[n, 3, 16, 16], between -1 and 1"""
    caption: Tensor
    """[n], index into `CAPTIONS`"""


def draw(count: int, seed: int, domain: str = "light", style: str = "plain") -> Pictures:
    """Random pictures; one seed, one set."""
    generator = torch.Generator().manual_seed(seed)
    caption = torch.randint(0, len(CAPTIONS), (count,), generator=generator)
    pixels = [_render(part, generator, domain, style) for part in caption.split(_BATCH)]
    return Pictures(torch.cat(pixels), caption)


def attributes(caption: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of colour, shape and place, [n] each."""
    return caption // 16, caption // 4 % 4, caption % 4


def _render(caption: Tensor, generator: torch.Generator, domain: str, style: str) -> Tensor:
    """[n, 3, SIZE, SIZE], drawn at twice the size and averaged."""
    count, side = len(caption), SIZE * 2
    colour, shape, place = attributes(caption)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    axis = (torch.arange(side) + 0.5) / side * 2 - 1
    down, right = torch.meshgrid(axis, axis, indexing="ij")
    centre = _CENTRES[place] + (uniform(count, 2) - 0.5) * 0.16
    x, y = right - centre[:, 0, None, None], down - centre[:, 1, None, None]
    size = (0.46 + 0.10 * uniform(count) if domain == "light" else 0.48 + 0.12 * uniform(count))[:, None, None]
    if domain == "dark":
        x, y = _turned(x, y, (uniform(count) - 0.5) * 0.8)
    distance = _distances(x, y, size)[torch.arange(count), shape]
    sharp = side * 0.45
    mask = torch.sigmoid(-distance * sharp)
    if style == "outline":
        mask = mask * torch.sigmoid((distance + 0.2) * sharp)
    ink = _RGB[colour] + (uniform(count, 3) - 0.5) * 0.12
    if style == "hue":
        ink = ink @ _hue_rotation(math.pi / 6).T
    ink = ink.clamp(0, 1)[:, :, None, None].expand(count, 3, side, side)
    if domain == "dark":
        ink = (ink * (1 + 0.45 * (-(x * 0.6 + y * 0.8) / size).clamp(-1, 1))[:, None]).clamp(0, 1)
    ground = _styled_ground(_ground(domain, uniform(count, 1), uniform(count, 3), down), style, right, down)
    picture = ground * (1 - mask[:, None]) + ink * mask[:, None]
    return functional.avg_pool2d(_over(picture, style, right, down), 2) * 2 - 1


def _turned(x: Tensor, y: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    return cos * x + sin * y, cos * y - sin * x


def _distances(x: Tensor, y: Tensor, size: Tensor) -> Tensor:
    """Signed distance to the edge of each shape, [n, 4, side, side]."""
    circle = (x * x + y * y).sqrt() - size
    square = torch.maximum(x.abs(), y.abs()) - size * 0.88
    triangle = torch.maximum(x.abs() * 0.87 + y * 0.5, -y) - size * 0.62
    arm, reach = size * 0.38, size * 1.05
    upright, level = torch.maximum(x.abs() - arm, y.abs() - reach), torch.maximum(x.abs() - reach, y.abs() - arm)
    return torch.stack([circle, square, triangle, torch.minimum(upright, level)], 1)


def _ground(domain: str, level: Tensor, tint: Tensor, down: Tensor) -> Tensor:
    """Background, [n, 3, side, side] or broadcastable to it."""
    if domain == "light":
        return (0.72 + 0.2 * level + (tint - 0.5) * 0.08)[:, :, None, None].expand(-1, 3, *down.shape)
    return (0.12 + 0.18 * level + (tint - 0.5) * 0.08)[:, :, None, None] + 0.22 * (down * 0.5 + 0.5)


def _styled_ground(ground: Tensor, style: str, right: Tensor, down: Tensor) -> Tensor:
    if style == "hue":
        return (ground * _column(0.72, 1.0, 0.82) + _column(0.0, 0.06, 0.0)).clamp(0, 1)
    if style == "stripes":
        wave = torch.sign(torch.sin((right + down) * math.pi * 2)) * 0.175
        return (ground - wave * _column(1.0, 0.4, -0.6)).clamp(0, 1)
    if style == "dots":
        grid = torch.sigmoid((torch.cos(right * math.pi * 4) + torch.cos(down * math.pi * 4) - 1) * 12)
        return (ground + grid * _column(0.1, -0.35, -0.35)).clamp(0, 1)
    return ground


def _over(picture: Tensor, style: str, right: Tensor, down: Tensor) -> Tensor:
    if style != "frame":
        return picture
    edge = torch.sigmoid((torch.maximum(right.abs(), down.abs()) - 0.84) * 60)
    return picture * (1 - edge) + edge * _column(0.25, 0.1, 0.45)


def _column(red: float, green: float, blue: float) -> Tensor:
    return torch.tensor([red, green, blue])[None, :, None, None]


def _hue_rotation(angle: float) -> Tensor:
    """Rotation about the grey axis, [3, 3]."""
    k = 3**-0.5
    cross = torch.tensor([[0, -k, k], [k, 0, -k], [-k, k, 0]])
    return torch.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * (cross @ cross)
