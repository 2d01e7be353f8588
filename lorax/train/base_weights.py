"""The weights that bases are taken from: the live ones, or the file's where the live ones were rounded on loading."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path

from torch import Tensor, nn

from lorax.checkpoint import Checkpoint, open_checkpoint
from lorax.errors import LoraxError
from lorax.header import DTYPE_NAMES
from lorax.layers import LayerId
from lorax.train.network import live_weight

log = logging.getLogger(__name__)
_EXACT = ("F32", "F64")


class FileWeights:
    """Weights by layer, for as long as it is open.

    A model that was loaded in bf16 has other singular vectors than its fp16 or fp32 file (3–9 % in ΔW), and the file is what
    others will have; so a layer whose live dtype is not the file's own is read from the file.
    """

    def __init__(self, path: str | Path | None) -> None:
        self._path = path
        self._open = ExitStack()
        self._file: Checkpoint | None = None
        self.taken: int = 0
        """Layers read from the file so far."""

    def __enter__(self) -> FileWeights:
        if self._path is not None and Path(self._path).exists():
            try:
                self._file = self._open.enter_context(open_checkpoint(self._path))
            except LoraxError as error:
                log.warning("LoRA-X: the base's file is not read (%s); bases are taken from the weights in memory", error)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def weight(self, layer: LayerId, module: nn.Module) -> Tensor:
        """The weight of `layer`, live in `module`, in fp32."""
        live = live_weight(module).detach()
        name = DTYPE_NAMES.get(live.dtype, "")
        if name in _EXACT or self._file is None or layer not in self._file.layers:
            return live.float()
        stored = self._file.layers[layer]
        if self._file.stored_dtype(stored) == name or stored.shape != tuple(live.shape):
            return live.float()
        self.taken += 1
        return self._file.read(stored)
