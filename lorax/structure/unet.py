"""The layers of a UNet in order of execution, each with its name in diffusers and in the LDM/SGM single-file layout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lorax.layers import Component, LayerId, LayerKind, LayerSpec, Stored, Unit
from lorax.structure.blocks import Stage, UNetStructure

FIXED_UNIT = Unit(Component.UNET, "", "fixed", "fixed", 0)

_HEAD = (
    ("conv_in", "input_blocks.0.0", LayerKind.CONV),
    ("time_embedding.linear_1", "time_embed.0", LayerKind.LINEAR),
    ("time_embedding.linear_2", "time_embed.2", LayerKind.LINEAR),
)
_ADDED = (
    ("add_embedding.linear_1", "label_emb.0.0", LayerKind.LINEAR),
    ("add_embedding.linear_2", "label_emb.0.2", LayerKind.LINEAR),
)
_TAIL = (
    ("conv_norm_out", "out.0", LayerKind.NORM),
    ("conv_out", "out.2", LayerKind.CONV),
)
_RESNET = (
    ("norm1", "in_layers.0", LayerKind.NORM),
    ("conv1", "in_layers.2", LayerKind.CONV),
    ("time_emb_proj", "emb_layers.1", LayerKind.LINEAR),
    ("norm2", "out_layers.0", LayerKind.NORM),
    ("conv2", "out_layers.3", LayerKind.CONV),
)
_TRANSFORMER = (
    ("norm1", LayerKind.NORM),
    ("attn1.to_q", LayerKind.LINEAR),
    ("attn1.to_k", LayerKind.LINEAR),
    ("attn1.to_v", LayerKind.LINEAR),
    ("attn1.to_out.0", LayerKind.LINEAR),
    ("norm2", LayerKind.NORM),
    ("attn2.to_q", LayerKind.LINEAR),
    ("attn2.to_k", LayerKind.LINEAR),
    ("attn2.to_v", LayerKind.LINEAR),
    ("attn2.to_out.0", LayerKind.LINEAR),
    ("norm3", LayerKind.NORM),
    ("ff.net.0.proj", LayerKind.LINEAR),
    ("ff.net.2", LayerKind.LINEAR),
)


@dataclass(frozen=True)
class _Block:
    """A module of the UNet under its two names."""

    diffusers: str
    single_file: str
    kind: str
    section: str
    depth: int = 0
    """Transformer blocks, for an attention."""
    shortcut: bool = False
    """For a resnet."""


def unet_layers(structure: UNetStructure) -> Iterator[LayerSpec]:
    """Every layer of the UNet that has a weight, in order of execution."""
    for diffusers, single_file, kind in _HEAD + (_ADDED if structure.added_embedding else ()):
        yield _spec(FIXED_UNIT, diffusers, diffusers, single_file, kind)
    index = 0
    for block in _blocks(structure):
        for unit, specs in _expand(block, structure.linear_projection, index + 1):
            index = unit.index
            yield from specs
    for diffusers, single_file, kind in _TAIL:
        yield _spec(FIXED_UNIT, diffusers, diffusers, single_file, kind)


def _blocks(structure: UNetStructure) -> Iterator[_Block]:
    slot = 1
    for level, stage in enumerate(structure.down):
        yield from _stage(stage, f"down_blocks.{level}", "input_blocks", slot, "down")
        sampler = 3 * (level + 1) if structure.strided else slot + len(stage.depths)
        if stage.sampler:
            yield _Block(f"down_blocks.{level}.downsamplers.0", f"input_blocks.{sampler}.0", "sampler", "down")
        slot = sampler + 1
    for i in range(structure.mid_resnets):
        place = i * (2 if structure.mid_depth else 1)
        yield _Block(f"mid_block.resnets.{i}", f"middle_block.{place}", "resnet", "mid")
        if i == 0 and structure.mid_depth:
            yield _Block("mid_block.attentions.0", "middle_block.1", "attention", "mid", depth=structure.mid_depth)
    slot = 0
    for level, stage in enumerate(structure.up):
        yield from _stage(stage, f"up_blocks.{level}", "output_blocks", slot, "up")
        slot = 3 * (level + 1) if structure.strided else slot + len(stage.depths)
        if stage.sampler:
            behind = (2 if level else 1) if structure.strided else (2 if stage.depths[-1] else 1)
            yield _Block(f"up_blocks.{level}.upsamplers.0", f"output_blocks.{slot - 1}.{behind}", "sampler", "up")


def _stage(stage: Stage, diffusers: str, single_file: str, slot: int, section: str) -> Iterator[_Block]:
    for i, (depth, shortcut) in enumerate(zip(stage.depths, stage.shortcuts, strict=True)):
        yield _Block(f"{diffusers}.resnets.{i}", f"{single_file}.{slot + i}.0", "resnet", section, shortcut=shortcut)
        if depth:
            yield _Block(f"{diffusers}.attentions.{i}", f"{single_file}.{slot + i}.1", "attention", section, depth=depth)


def _expand(block: _Block, linear: bool, index: int) -> Iterator[tuple[Unit, list[LayerSpec]]]:
    unit = Unit(Component.UNET, block.diffusers, block.kind, block.section, index)
    if block.kind == "resnet":
        roles = list(_RESNET)
        if block.shortcut:
            roles.append(("conv_shortcut", "skip_connection", LayerKind.CONV))
        yield unit, [_child(unit, block, role, single, kind) for role, single, kind in roles]
    elif block.kind == "sampler":
        yield unit, [_child(unit, block, "conv", "op" if block.section == "down" else "conv", LayerKind.CONV)]
    else:
        projection = LayerKind.LINEAR if linear else LayerKind.CONV
        roles = [("norm", "norm", LayerKind.NORM), ("proj_in", "proj_in", projection), ("proj_out", "proj_out", projection)]
        yield unit, [_child(unit, block, role, single, kind) for role, single, kind in roles]
        for i in range(block.depth):
            yield _transformer(block, i, index + 1 + i)


def _transformer(attention: _Block, i: int, index: int) -> tuple[Unit, list[LayerSpec]]:
    inner = f"transformer_blocks.{i}"
    unit = Unit(Component.UNET, f"{attention.diffusers}.{inner}", "transformer", attention.section, index)
    single_file = f"{attention.single_file}.{inner}"
    return unit, [_spec(unit, role, f"{unit.path}.{role}", f"{single_file}.{role}", kind) for role, kind in _TRANSFORMER]


def _child(unit: Unit, block: _Block, role: str, single_file: str, kind: LayerKind) -> LayerSpec:
    return _spec(unit, role, f"{block.diffusers}.{role}", f"{block.single_file}.{single_file}", kind)


def _spec(unit: Unit, role: str, diffusers: str, single_file: str, kind: LayerKind) -> LayerSpec:
    return LayerSpec(LayerId(Component.UNET, diffusers), kind, unit, role, Stored(single_file), Stored(diffusers))
