"""The file that every loader takes: down, up and alpha of each layer, nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from lorax.errors import MalformedAdapter
from lorax.layers import Component, LayerId
from lorax.linalg import Factors, all_finite
from lorax.workers import single_threaded

ALIKE = 4.0
"""Ratio of lengths up to which two vectors stay as they are."""
Written = tuple[Tensor, Tensor, Tensor]
"""(down, up, alpha) as stored"""


def stored_factors(
    modules: Mapping[LayerId, Factors], shapes: Mapping[LayerId, tuple[int, ...]], dtype: torch.dtype, *, one_rank: bool = False
) -> dict[LayerId, Written]:
    """Balanced factors in their stored shapes and dtype; modules of rank 0 are left out, they change nothing.

    shapes: the layers' weight shapes, [out, in] or [out, in, kh, kw]. alpha is the rank, so that the scale is 1. Where ranks
    differ within a component, alpha is the largest of them for all of it, and `up` makes up for that: diffusers (0.42) gives
    the attention layers of kohya files one common alpha.
    one_rank: fill the ranks up with zeros to that alpha instead, for files that do not store it.
    """
    alphas: dict[Component, int] = {}
    for layer, f in modules.items():
        alphas[layer.component] = max(alphas.get(layer.component, 0), f.rank)
    with single_threaded():
        return {i: _stored(i, f, shapes[i], alphas[i.component], dtype, one_rank) for i, f in modules.items() if f.rank > 0}


def _stored(layer: LayerId, factors: Factors, shape: tuple[int, ...], alpha: int, dtype: torch.dtype, one_rank: bool) -> Written:
    if factors.shape != (shape[0], math.prod(shape[1:])):
        raise MalformedAdapter(f"{layer}: a delta of {list(factors.shape)} does not fit a weight of {list(shape)}.")
    f = balanced(factors)
    up, down, missing = f.up, f.down, alpha - f.rank
    if missing and one_rank:
        up, down = torch.nn.functional.pad(up, (0, missing)), torch.nn.functional.pad(down, (0, 0, 0, missing))
    elif missing:
        up = up.float() * (f.rank / alpha)
    up, down = up.reshape(*up.shape, *[1] * (len(shape) - 2)), down.reshape(-1, *shape[1:])
    written = (x.detach().cpu().to(dtype).contiguous() for x in (down, up))
    down, up = written if fits(f, dtype) else (_finite(layer, x) for x in written)
    return down, up, torch.tensor(float(alpha), dtype=dtype)


def fits(factors: Factors, dtype: torch.dtype) -> bool:
    """Whether no number can be over the dtype's range, because no vector is as long as that."""
    limit = torch.finfo(dtype).max
    return all(bool((vectors < limit).all()) for vectors in factors.lengths())


def folded(down: Tensor, up: Tensor, alpha: Tensor) -> Factors:
    """The delta that a reader gets from what is stored."""
    return Factors(up.flatten(1).float() * (float(alpha) / down.shape[0]), down.flatten(1).float())


def _finite(layer: LayerId, tensor: Tensor) -> Tensor:
    if not all_finite(tensor):
        name = str(tensor.dtype).removeprefix("torch.")
        raise MalformedAdapter(f"{layer}: the delta has values that {name} cannot hold; write bf16 or fp32.")
    return tensor


def balanced(factors: Factors) -> Factors:
    """The same delta with the two vectors of each rank about equally long, so that neither under- nor overflows in fp16.

    By powers of two, which are exact, and only where the lengths differ by more than a factor of `ALIKE`: a file that was read
    and is written again keeps its bytes.
    """
    lengths_up, lengths_down = factors.lengths()
    ratio = lengths_up / lengths_down
    if bool(((ratio >= 1 / ALIKE) & (ratio <= ALIKE)).all()):
        return factors
    alive = (lengths_up > 0) & (lengths_down > 0)
    half = torch.where(alive, ratio, torch.ones_like(ratio)).log2() / 2
    shift = torch.where(half.abs() > 1, half.round(), torch.zeros_like(half)).float()
    up, down = factors.up.float(), factors.down.float()
    return Factors(torch.ldexp(up, -shift) * alive, torch.ldexp(down, shift[:, None]) * alive[:, None])
