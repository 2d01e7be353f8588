"""An adapter in memory: what it does to each layer, and where it came from.

::

    Adapter
    ├── modules: LayerId → AdapterModule     LowRank Dense Hadamard Kronecker Decomposed Rotation Generalized Scaling Spectral
    ├── offsets: LayerId → Offset            biases and norms, 1-D
    └── unmatched                            keys that could not be placed, each with its reason
"""

from __future__ import annotations

from lorax.adapter.base import AdapterModule, Offset
from lorax.adapter.decomposed import Decomposed
from lorax.adapter.low_rank import Dense, LowRank
from lorax.adapter.model import Adapter, BaseHint, Fingerprint, Native
from lorax.adapter.products import Hadamard, Kronecker
from lorax.adapter.relative import Generalized, Scaling
from lorax.adapter.rotation import Rotation
from lorax.adapter.spectral import Spectral

__all__ = [
    "Adapter",
    "AdapterModule",
    "BaseHint",
    "Decomposed",
    "Dense",
    "Fingerprint",
    "Generalized",
    "Hadamard",
    "Kronecker",
    "LowRank",
    "Native",
    "Offset",
    "Rotation",
    "Scaling",
    "Spectral",
]
