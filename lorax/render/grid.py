"""Where a layer stands in a picture of its network: one row per step of depth, one column per role, both in order of execution.

A resnet and the attention after it share a row, as do an attention and its first transformer block, so SD1.5 has some 25 rows
and SDXL some 80.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lorax.layers import LayerId

_UNET = re.compile(
    r"(?:(down|up)_blocks\.(\d+)|(mid)_block)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)"
    r"(?:\.transformer_blocks\.(\d+))?(?:\.(.+))?"
)
_TEXT = re.compile(r"(?:text_model\.)?encoder\.layers\.(\d+)(?:\.(.+))?")

COLUMNS: dict[str, tuple[str, str]] = {
    "resnets.conv1": ("resnet", "1"),
    "resnets.time_emb_proj": ("resnet", "t"),
    "resnets.conv2": ("resnet", "2"),
    "resnets.conv_shortcut": ("resnet", "s"),
    "attentions.proj_in": ("proj", "in"),
    "attentions.proj_out": ("proj", "out"),
    "attn1.to_q": ("self-attn", "q"),
    "attn1.to_k": ("self-attn", "k"),
    "attn1.to_v": ("self-attn", "v"),
    "attn1.to_out.0": ("self-attn", "out"),
    "attn2.to_q": ("cross-attn", "q"),
    "attn2.to_k": ("cross-attn", "k"),
    "attn2.to_v": ("cross-attn", "v"),
    "attn2.to_out.0": ("cross-attn", "out"),
    "ff.net.0.proj": ("ff", "in"),
    "ff.net.2": ("ff", "out"),
    "samplers.conv": ("scale", "↕"),
    "self_attn.q_proj": ("attention", "q"),
    "self_attn.k_proj": ("attention", "k"),
    "self_attn.v_proj": ("attention", "v"),
    "self_attn.out_proj": ("attention", "out"),
    "mlp.fc1": ("mlp", "in"),
    "mlp.fc2": ("mlp", "out"),
}
"""Column of a role: group heading and short name, in order of execution; a role that is not here gets a column at the end."""

COLUMN_ORDER = {column: i for i, column in enumerate(COLUMNS)}


@dataclass(frozen=True, order=True)
class Place:
    """A cell of the picture of one component."""

    stage_order: tuple[int, int]
    row: tuple[int, int]
    """(step within the stage, transformer block within the step)"""
    stage: str
    """``down 1``, ``mid``, ``up 0``, ``layers`` or, for layers outside the blocks, ``in`` or ``out``."""
    label: str
    """Short name of the row, e.g. ``1`` or ``1·3``."""
    column: str
    """A key of `COLUMNS`, or the role itself."""


def place(layer: LayerId) -> Place:
    """The layer's cell."""
    text = _TEXT.fullmatch(layer.path)
    if text:
        return Place((1, 0), (int(text[1]), 0), "layers", text[1], text[2] or "")
    unet = _UNET.fullmatch(layer.path)
    return _unet_place(unet) if unet else _fixed_place(layer.path)


def _unet_place(found: re.Match[str]) -> Place:
    side, level, _, kind, step, block, role = found.groups()
    stage = f"{side} {level}" if side else "mid"
    order = ({"down": 1, None: 2, "up": 3}[side], int(level or 0))
    role = role or ""
    if kind in ("downsamplers", "upsamplers"):
        return Place(order, (1000, 0), stage, "↓" if side == "down" else "↑", f"samplers.{role}")
    if block is None:
        return Place(order, (int(step), 0), stage, step, f"{kind}.{role}")
    return Place(order, (int(step), int(block)), stage, step if block == "0" else f"{step}·{block}", role)


def _fixed_place(path: str) -> Place:
    head, _, role = path.rpartition(".")
    last = path.startswith(("conv_out", "conv_norm_out")) or "final_layer_norm" in path
    label = (head or path).rsplit(".", 1)[-1].replace("_", " ")
    return Place((4, 0) if last else (0, 0), (0, 0), "out" if last else "in", label, role or path)


def block_of(layer: LayerId) -> str:
    """The block that a layer belongs to, with its component: everything before the role, e.g. ``unet.mid_block.resnets.0``."""
    found = _UNET.fullmatch(layer.path) or _TEXT.fullmatch(layer.path)
    role = found.groups()[-1] if found else None
    return str(layer).removesuffix(f".{role}") if role else str(layer)


def block_title(block: str) -> str:
    """A block's path in words: ``unet.down_blocks.1.attentions.0.transformer_blocks.3`` → ``down 1 · attention 0 · block 3``."""
    component, _, path = block.partition(".")
    text = _TEXT.fullmatch(path)
    if text:
        return f"{COMPONENT_TITLES.get(component, component)} · layer {text[1]}"
    found = _UNET.fullmatch(path)
    if not found:
        return block if component not in COMPONENT_TITLES else f"{COMPONENT_TITLES[component]} · {path}"
    side, level, _, kind, step, inner, _ = found.groups()
    words = [f"{side} {level}" if side else "mid"]
    words.append(kind.removesuffix("s") if kind.endswith("samplers") else f"{kind.removesuffix('s')} {step}")
    if inner is not None:
        words.append(f"block {inner}")
    return " · ".join(words)


COMPONENT_TITLES = {"unet": "U-Net", "te1": "Text encoder 1", "te2": "Text encoder 2"}
