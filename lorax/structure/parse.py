"""Read a structure forward out of a file's own tensor names and shapes. Only the rank of a shape is looked at, never a width."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from lorax.errors import MalformedCheckpoint
from lorax.structure.blocks import Stage, TextStructure, UNetStructure

UNetLayout = Literal["single_file", "diffusers"]
Shapes = Mapping[str, tuple[int, ...]]


def parse_unet(shapes: Shapes) -> tuple[UNetStructure, UNetLayout] | None:
    """The UNet whose tensors are in `shapes` (names without the file's prefix), or None where there is no UNet.

    MalformedCheckpoint where blocks that the rest depends on are missing; the message continues the sentence "FILE …".
    """
    if "input_blocks.0.0.weight" in shapes and "out.2.weight" in shapes:
        return _single_file(shapes), "single_file"
    if "conv_in.weight" in shapes and "down_blocks.0.resnets.0.conv1.weight" in shapes and "conv_out.weight" in shapes:
        return _diffusers(shapes), "diffusers"
    return None


def parse_text(names: Iterable[str]) -> TextStructure | None:
    """The text encoder whose tensors have these names (without the file's prefix, with ``text_model.``), or None."""
    known = set(names)
    children = _children(known)
    openclip = _count(children, "transformer.resblocks")
    if openclip and "token_embedding.weight" in known:
        return TextStructure("openclip", openclip)
    clip = _count(children, "text_model.encoder.layers")
    if clip and "text_model.embeddings.token_embedding.weight" in known:
        return TextStructure("clip", clip)
    return None


def _single_file(shapes: Shapes) -> UNetStructure:
    children = _children(shapes)
    down: list[Stage] = []
    level: list[tuple[int, bool]] = []
    inputs = _numbers(children, "input_blocks")
    for i in inputs[1:]:
        if "op" in children.get(f"input_blocks.{i}.0", ()):
            down.append(_stage(level, sampler=True))
            level = []
        else:
            level.append(_ldm_resnet(children, f"input_blocks.{i}"))
    down.append(_stage(level, sampler=False))

    up: list[Stage] = []
    level = []
    for i in _numbers(children, "output_blocks"):
        at = f"output_blocks.{i}"
        if "0" in children[at]:
            level.append(_ldm_resnet(children, at))
        if any("conv" in children.get(f"{at}.{j}", ()) for j in (1, 2)):
            up.append(_stage(level, sampler=True))
            level = []
    up.append(_stage(level, sampler=False))

    resnets = sum("in_layers" in children.get(f"middle_block.{i}", ()) for i in range(3))
    depth = _count(children, "middle_block.1.transformer_blocks")
    strided = inputs[-1] + 1 != len(inputs)
    return UNetStructure(tuple(down), resnets, depth, tuple(up), _linear(shapes), "label_emb" in children, strided)


def _diffusers(shapes: Shapes) -> UNetStructure:
    children = _children(shapes)
    sides: list[tuple[Stage, ...]] = []
    for side, sampler in (("down_blocks", "downsamplers"), ("up_blocks", "upsamplers")):
        stages: list[Stage] = []
        for level in range(_count(children, side)):
            at = f"{side}.{level}"
            resnets: list[tuple[int, bool]] = []
            for i in range(_count(children, f"{at}.resnets")):
                depth = _count(children, f"{at}.attentions.{i}.transformer_blocks")
                resnets.append((depth, "conv_shortcut" in children.get(f"{at}.resnets.{i}", ())))
            stages.append(_stage(resnets, sampler=sampler in children.get(at, ())))
        sides.append(tuple(stages))
    resnets_mid = _count(children, "mid_block.resnets")
    depth_mid = _count(children, "mid_block.attentions.0.transformer_blocks")
    added = "add_embedding" in children
    return UNetStructure(sides[0], resnets_mid, depth_mid, sides[1], _linear(shapes), added)


def _stage(resnets: list[tuple[int, bool]], *, sampler: bool) -> Stage:
    if not resnets:
        raise MalformedCheckpoint("has a UNet level without residual blocks; the file seems to be incomplete")
    return Stage(tuple(depth for depth, _ in resnets), sampler, tuple(shortcut for _, shortcut in resnets))


def _ldm_resnet(children: Mapping[str, set[str]], at: str) -> tuple[int, bool]:
    block = children.get(f"{at}.0", set())
    if "in_layers" not in block:
        raise MalformedCheckpoint(f"has no residual block at {at}.0 of its UNet; the file seems to be incomplete")
    return _count(children, f"{at}.1.transformer_blocks"), "skip_connection" in block


def _linear(shapes: Shapes) -> bool:
    ranks = {len(shape) for name, shape in shapes.items() if name.endswith(".proj_in.weight")}
    if len(ranks) > 1:
        raise MalformedCheckpoint("has proj_in of both kinds, linear and convolution; it was merged wrongly")
    return ranks == {2}


def _children(names: Iterable[str]) -> dict[str, set[str]]:
    """For each module its direct children."""
    found: dict[str, set[str]] = {}
    for name in names:
        module, _, child = name.rpartition(".")
        while module and child not in (known := found.setdefault(module, set())):
            known.add(child)
            module, _, child = module.rpartition(".")
    return found


def _numbers(children: Mapping[str, set[str]], module: str) -> list[int]:
    return sorted(int(child) for child in children.get(module, ()) if child.isdecimal())


def _count(children: Mapping[str, set[str]], module: str) -> int:
    """One more than the largest number among a module's children."""
    return max(_numbers(children, module), default=-1) + 1
