"""Small base models in genuine layouts, with weights drawn at random: for the demo and the tests. They draw no pictures."""

from __future__ import annotations

from converter.samples.kin import block_map, pruned, relative
from converter.samples.layouts import sample_checkpoint, write_diffusers
from converter.samples.widths import SMALL, TINY, Widths, diffusers_config, text_config

__all__ = [
    "SMALL",
    "TINY",
    "Widths",
    "block_map",
    "diffusers_config",
    "pruned",
    "relative",
    "sample_checkpoint",
    "text_config",
    "write_diffusers",
]
