"""Adapters merged into a checkpoint file."""

from __future__ import annotations

from lorax.bake.plan import Absent
from lorax.bake.run import BakedAdapter, BakeReport, bake

__all__ = ["Absent", "BakeReport", "BakedAdapter", "bake"]
