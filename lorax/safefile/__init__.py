"""Files of tensors: safetensors, GGUF, sharded sets and pickles read lazily; safetensors and text written whole or not at all."""

from __future__ import annotations

from lorax.header import TensorInfo
from lorax.safefile.open import open_tensors
from lorax.safefile.read import Rows, TensorFile
from lorax.safefile.sharded import open_sharded
from lorax.safefile.write import replacing, stream_safetensors, write_safetensors, write_text

__all__ = [
    "Rows",
    "TensorFile",
    "TensorInfo",
    "open_sharded",
    "open_tensors",
    "replacing",
    "stream_safetensors",
    "write_safetensors",
    "write_text",
]
