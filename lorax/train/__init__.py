"""Train native LoRA-X adapters (arXiv 2501.16559): as a library on any model, in kohya's sd-scripts, and on their own.

- ``attach(model, k=16)`` puts LoRA-X on the linear layers and convolutions of any ``nn.Module``;
- ``--network_module=lorax.train.kohya`` is for sd-scripts;
- ``python -m lorax.train`` is a trainer of its own (extra ``[train]``).
"""

from __future__ import annotations

from lorax.train.forms import Form
from lorax.train.module import SpectralLayer, adaptable
from lorax.train.network import DEFAULT_K, Network, attach

__all__ = ["DEFAULT_K", "Form", "Network", "SpectralLayer", "adaptable", "attach"]
