"""What a comparison is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lorax.train.distill import DistillSettings

METHODS = ("none", "copy", "auto", "project", "align", "distill")
"""Columns that can be drawn on the target; ``none`` is the target as it is."""


@dataclass(frozen=True)
class CompareSettings:
    """Every column is drawn from the same noise, so that only the adapter makes the difference."""

    prompts: tuple[str, ...]
    methods: tuple[str, ...] = ("none", "copy", "auto")
    seeds: int = 1
    """Pictures of each prompt"""
    seed: int = 0
    """The first of them"""
    steps: int = 25
    """DDIM steps of a picture"""
    guidance: float = 7.0
    resolution: int | None = None
    """None: the target's own"""
    batch_size: int = 2
    precision: str = "auto"
    device: str = "auto"
    source_config: Path | None = None
    target_config: Path | None = None
    distilled: Path | None = None
    """An adapter that was distilled before; None: ``distill`` trains one, which is kept beside the grid."""
    distill: DistillSettings = field(default_factory=DistillSettings)
    """Of that training; configurations, device and precision are taken from here above."""
    overwrite: bool = False

    @property
    def rows(self) -> tuple[tuple[str, int], ...]:
        """(prompt, seed) of each row of the grid"""
        return tuple((prompt, self.seed + i) for prompt in self.prompts for i in range(self.seeds))
