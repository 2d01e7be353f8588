"""Width-free descriptions of base models: what blocks there are, what their layers are called, and how to recognise them."""

from __future__ import annotations

from lorax.structure.arch import Arch
from lorax.structure.blocks import Stage, TextKind, TextStructure, UNetStructure
from lorax.structure.config import diffusers_blocks
from lorax.structure.parse import UNetLayout, parse_text, parse_unet

__all__ = ["Arch", "Stage", "TextKind", "TextStructure", "UNetLayout", "UNetStructure", "diffusers_blocks", "parse_text", "parse_unet"]
