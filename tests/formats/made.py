"""Small adapters with genuine names."""

from __future__ import annotations

import torch

from lorax.archs import by_name
from lorax.layers import LayerId, LayerKind
from lorax.linalg import Factors

OUT, IN = 12, 8


def layer_shapes(arch_name: str, pattern: str = "") -> dict[LayerId, tuple[int, ...]]:
    """Invented weight shapes of the linear and convolutional layers whose path contains `pattern`: all alike, and narrow."""
    shapes: dict[LayerId, tuple[int, ...]] = {}
    for spec in by_name(arch_name).layers():
        if pattern in spec.id.path and spec.kind == LayerKind.LINEAR:
            shapes[spec.id] = (OUT, IN)
        elif pattern in spec.id.path and spec.kind == LayerKind.CONV:
            kernel = 1 if spec.role in ("proj_in", "proj_out", "conv_shortcut") else 3
            shapes[spec.id] = (OUT, IN, kernel, kernel)
    return shapes


def random_factors(shapes: dict[LayerId, tuple[int, ...]], ranks: tuple[int, ...] = (3,), seed: int = 0) -> dict[LayerId, Factors]:
    """Random deltas, their ranks taken in turn."""
    g = torch.Generator().manual_seed(seed)
    modules: dict[LayerId, Factors] = {}
    for n, (layer, shape) in enumerate(shapes.items()):
        r, columns = ranks[n % len(ranks)], torch.Size(shape[1:]).numel()
        modules[layer] = Factors(torch.randn(shape[0], r, generator=g), torch.randn(r, columns, generator=g))
    return modules
