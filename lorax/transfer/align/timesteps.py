"""The timestep's way into a UNet: sinusoids whose number follows the model's first width."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinusoids(times: Tensor, size: int) -> Tensor:
    """[t, size]: cosines, then sines, at frequencies from 1 to 1e-4, as in all models of these families (LDM, diffusers)."""
    half = size // 2
    angles = times[:, None] * torch.exp(-math.log(10000.0) * torch.arange(half) / half)[None]
    return torch.cat([angles.cos(), angles.sin()], 1)


def sinusoid_map(n_t: int, n_s: int) -> Tensor:
    """[n_t, n_s] M with ``ψ_s(t) ≈ Mᵀ ψ_t(t)``: the source's sinusoids in terms of the target's, by least squares over t."""
    grid = torch.linspace(0.0, 1000.0, 2001)
    ours, theirs = (sinusoids(grid, n).double() for n in (n_t, n_s))
    return torch.linalg.lstsq(ours, theirs).solution.float()
