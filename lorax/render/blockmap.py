"""Which block of the target took over which block of the source, as a picture: two columns with lines, one panel per stage."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lorax.render.drawing import Drawing, svg
from lorax.render.grid import COMPONENT_TITLES
from lorax.render.heatmap import step
from lorax.render.markup import Markup, join, tag
from lorax.transfer.types import UnitMatch

ROW, DOT, SPAN = 17, 10, 96
"""Row height, node size, and the distance between the two columns, px."""
LABELS = 40
PANEL_WIDTH, PANEL_GAP = SPAN + 2 * LABELS + DOT, 26
PER_LINE = 4
HEAD = 46

_STAGE = re.compile(r"(\w+)\.((?:down|up)_blocks\.\d+|mid_block|(?:text_model\.)?encoder)\.(.+)")
_KINDS = ("transformer block", "attention", "resnet", "downsampler", "upsampler", "layer", "block")


_Key = tuple[tuple[int, int, int], str, str]
"""(order, title, kind) of a stage"""


@dataclass(frozen=True)
class Stage:
    """The blocks of one kind in one stage of the network, on both sides."""

    title: str
    kind: str
    """In words and singular: ``transformer block``, ``resnet``, …"""
    source: tuple[str, ...]
    """Paths in order of execution, the ones without a partner included."""
    target: tuple[str, ...]
    ties: tuple[tuple[str, str, float | None], ...]
    """(source path, target path, cosine) of the pairs within the stage."""
    crossing: tuple[tuple[str, str], ...] = ()
    """(source path, target path) of the pairs that join this stage with another."""

    @property
    def plain(self) -> bool:
        """Every block went to the block of its own name."""
        return all(s == t for s, t, _ in self.ties) and len(self.ties) == len(self.source) == len(self.target)


def stages(units: Sequence[UnitMatch], lost: Sequence[str] = ()) -> tuple[Stage, ...]:
    """The block map by stage and kind.

    lost: paths of source blocks that no target block took.
    """
    found: dict[_Key, dict[str, list[str]]] = {}
    ties: dict[_Key, list[tuple[str, str, float | None]]] = {}
    crossing: list[tuple[str, str]] = []
    for unit in units:
        _collect(found, "target", unit.target)
        if unit.source is not None:
            key = _collect(found, "source", unit.source)
            if key == _key(unit.target):
                ties.setdefault(key, []).append((unit.source, unit.target, unit.cosine))
            else:
                crossing.append((unit.source, unit.target))
    for path in lost:
        _collect(found, "source", path)
    return tuple(
        Stage(
            title=key[1],
            kind=key[2],
            source=_ordered(sides.get("source", [])),
            target=_ordered(sides.get("target", [])),
            ties=tuple(ties.get(key, [])),
            crossing=tuple(pair for pair in crossing if key in (_key(pair[0]), _key(pair[1]))),
        )
        for key, sides in sorted(found.items())
    )


def blockmap(shown: Sequence[Stage], title: str) -> Markup:
    """The picture of the given stages."""
    return svg(draw_blockmap(shown), title, "blocks")


def draw_blockmap(shown: Sequence[Stage], per_line: int = PER_LINE) -> Drawing:
    """The picture without a frame, `per_line` panels a line."""
    placed: list[Markup] = []
    y = width = 0.0
    for start in range(0, len(shown), per_line):
        line = shown[start : start + per_line]
        for i, stage in enumerate(line):
            x = i * (PANEL_WIDTH + PANEL_GAP)
            placed.append(tag("g", _panel(stage), transform=f"translate({x} {y:.0f})"))
            width = max(width, x + PANEL_WIDTH)
        y += HEAD + ROW * max(max(len(s.source), len(s.target)) for s in line) + 18
    return Drawing(join(*placed), width, y)


def block_name(path: str) -> str:
    """The short name inside its stage: ``attentions.1.transformer_blocks.3`` → ``1·3``."""
    return "·".join(re.findall(r"\d+", _inside(path))) or _inside(path)


def _panel(stage: Stage) -> Markup:
    left, right = LABELS + DOT / 2, LABELS + DOT / 2 + SPAN
    rows = max(len(stage.source), len(stage.target))
    source = _positions(stage.source, rows)
    target = _positions(stage.target, rows)
    partners = {s: t for s, t, _ in stage.ties} | dict(stage.crossing)
    origins = {t: s for s, t in partners.items()}
    parts: list[Markup] = [
        tag("text", stage.title, class_="head", x=0, y=13),
        tag("text", f"{stage.kind}s: {len(stage.source)} → {len(stage.target)}", class_="lab", x=0, y=28),
    ]
    parts += [_tie(left, source[s], right, target[t], s, t, cosine) for s, t, cosine in stage.ties]
    for path, y in source.items():
        parts.append(tag("text", block_name(path), class_="lab end", x=left - DOT, y=y + 4))
        parts.append(_node(left, y, path, partners.get(path), "left out: the target has no block for it", "goes to"))
    for path, y in target.items():
        parts.append(tag("text", block_name(path), class_="lab", x=right + DOT, y=y + 4))
        parts.append(_node(right, y, path, origins.get(path), "gets nothing: the source has no block for it", "comes from"))
    return join(*parts)


def _tie(x1: float, y1: float, x2: float, y2: float, source: str, target: str, cosine: float | None) -> Markup:
    bend = SPAN * 0.45
    path = f"M{x1:.0f} {y1:.1f} C{x1 + bend:.0f} {y1:.1f} {x2 - bend:.0f} {y2:.1f} {x2:.0f} {y2:.1f}"
    alike = "" if cosine is None else f", cosine {cosine:.2f}"
    colour = "k6" if cosine is None else f"k{max(2, step(cosine))}"
    return tag("path", tag("title", f"{source} → {target}{alike}"), d=path, class_=f"tie {colour}")


def _node(x: float, y: float, path: str, partner: str | None, otherwise: str, verb: str) -> Markup:
    tip = f"{path} {verb} {partner}" if partner else f"{path} {otherwise}"
    name = "node" if partner else "gone"
    return tag("rect", tag("title", tip), class_=name, x=x - DOT / 2, y=y - DOT / 2, width=DOT, height=DOT)


def _positions(paths: Sequence[str], rows: int) -> dict[str, float]:
    """Both columns are spread over the same height."""
    pitch = ROW * rows / max(1, len(paths))
    return {path: HEAD + pitch * (i + 0.5) for i, path in enumerate(paths)}


def _collect(found: dict[_Key, dict[str, list[str]]], side: str, path: str) -> _Key:
    key = _key(path)
    found.setdefault(key, {}).setdefault(side, []).append(path)
    return key


def _key(path: str) -> _Key:
    """Transformer blocks of all stages come first, then attentions, resnets and the rest; text encoders last."""
    hit = _STAGE.fullmatch(path)
    if not hit:
        return (99, 0, 0), "other", "block"
    component, stage, rest = hit.groups()
    level = int((re.findall(r"\d+", stage) or ["0"])[0])
    kind = "transformer block" if "transformer_blocks" in rest else rest.split(".")[0].removesuffix("s")
    if "encoder" in stage:
        return (50, 0, 0), COMPONENT_TITLES.get(component, component).lower(), "layer"
    side = {"d": 0, "m": 1, "u": 2}[stage[0]]
    title = "mid" if side == 1 else f"{stage.split('_')[0]} {level}"
    return (_KINDS.index(kind) if kind in _KINDS else len(_KINDS), side, level), title, kind


def _inside(path: str) -> str:
    hit = _STAGE.fullmatch(path)
    return hit[3] if hit else path


def _ordered(paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(dict.fromkeys(paths), key=lambda p: [int(n) for n in re.findall(r"\d+", p)]))
