"""The switches that the contract makes."""

from __future__ import annotations

PAIRS = [("a", "b"), ("same_a", "same_b")]
"""A switch that makes a new model object, and one that keeps it."""
HIRES = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.6, "hr_second_pass_steps": 4}


def base(checkpoint: str) -> str:
    """Whose weights a checkpoint has."""
    return checkpoint.removeprefix("same_")
