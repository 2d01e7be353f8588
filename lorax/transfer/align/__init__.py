"""Alignment: which channel of the target is which of the source, found from the two models' weights alone.

Both models are seen as graphs of channel spaces (`lorax.structure.channels`). A layer that is matched in both ties a pair of
output spaces to one or more pairs of input spaces, ``W_t ≈ M_out W_s M_inᵀ``; each pair of spaces has one map M, shared by all
layers that touch it. What both models have in common by nature (latents, text, time) anchors the rest. Related: Git Re-Basin
(Ainsworth et al. 2022, arXiv 2209.04836).
"""

from __future__ import annotations

from lorax.transfer.align.alignment import Alignment
from lorax.transfer.align.blocks import match_whole, widths_differ
from lorax.transfer.align.find import find_alignment

__all__ = ["Alignment", "find_alignment", "match_whole", "widths_differ"]
