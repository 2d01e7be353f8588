"""The two ways to compute ``y = x (W + U ΔΣ Vᵀ)ᵀ``, and which of them is cheaper.

factored: ``x Wᵀ + ((x V) ΔΣᵀ) Uᵀ``, two thin products beside the base's own; merged: ``x (W + ΔW)ᵀ`` with ΔW formed anew at each
step. Costs count multiplications of forward and backward that the base alone would not need.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Form = Literal["auto", "factored", "merged"]
FORMS: tuple[Form, ...] = ("auto", "factored", "merged")


def factored_cost(out: int, columns: int, k: int, tokens: int) -> int:
    """x V and its image under U, and the same two products of the gradient."""
    return 2 * tokens * k * (out + columns)


def merged_cost(out: int, columns: int, k: int, tokens: int) -> int:
    """Forming ΔW, the gradient of the whole weight, and its coordinates on the bases."""
    return tokens * out * columns + 2 * k * out * columns


def choose_form(out: int, columns: int, k: int, tokens: int, dtype: torch.dtype) -> Form:
    """The cheaper form of a layer [out, columns] at this many tokens (batch times positions).

    In half precision always the factored one: ``W + ΔW`` rounds ΔW to the grid of W, which at σ = 0.01 loses a quarter of it
    in bf16 and 3 % in fp16, and nearly all of it at the sizes that training starts from.
    """
    if dtype not in (torch.float32, torch.float64):
        return "factored"
    return "merged" if merged_cost(out, columns, k, tokens) < factored_cost(out, columns, k, tokens) else "factored"


def compute_dtype(x: Tensor) -> torch.dtype:
    """What a linear layer computes in on this input: autocast's dtype inside autocast, else the input's own."""
    kind = x.device.type
    if hasattr(torch, "get_autocast_dtype"):  # torch ≥ 2.4
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    if kind == "cpu":
        return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else x.dtype
    return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else x.dtype
