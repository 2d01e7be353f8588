"""How strong each layer of a file is: of an adapter the size of its change, of a base the size of its weights."""

from __future__ import annotations

import torch

from lorax.adapter import Adapter
from lorax.bases import Bases
from lorax.checkpoint import Checkpoint
from lorax.layers import LayerId
from lorax.linalg import Factors, energy
from lorax.transfer.run import source_delta
from lorax.transfer.types import Progress, no_progress


def adapter_strengths(adapter: Adapter, source: Checkpoint | None = None, progress: Progress = no_progress) -> dict[LayerId, float | None]:
    """‖ΔW‖_F by layer; None where it takes the weights of a base that is not given."""
    found: dict[LayerId, float | None] = {}
    for done, (layer, module) in enumerate(adapter.modules.items()):
        progress("measuring the adapter", done, len(adapter.modules))
        delta = source_delta(module, layer, source, Bases(), torch.device("cpu"))
        found[layer] = None if delta is None else (delta.energy() if isinstance(delta, Factors) else energy(delta)) ** 0.5
    return found


def checkpoint_strengths(checkpoint: Checkpoint, progress: Progress = no_progress) -> dict[LayerId, float | None]:
    """Root mean square of each layer's weight; reads the whole file once."""
    found: dict[LayerId, float | None] = {}
    for done, layer in enumerate(checkpoint.layers.values()):
        progress("measuring the weights", done, len(checkpoint.layers))
        weight = checkpoint.read(layer)
        found[layer.id] = (energy(weight) / max(1, weight.numel())) ** 0.5
    return found
