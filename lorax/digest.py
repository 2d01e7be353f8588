"""Content identity: of files, of tensors, and the hashes by which other programs know a model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from lorax.errors import FileError, one_line
from lorax.header import DTYPE_NAMES, build_header, data_order, tensor_bytes, tensor_info

BLOCK = 1 << 20


def sha256_file(path: Path, progress: Callable[[int, int], None] | None = None) -> str:
    """sha256 of the whole file as 64 hex digits: ``ss_new_sd_model_hash``, Civitai's SHA256; its first 10 are A1111's model hash.

    progress: called with (bytes done, bytes in all).
    """
    digest, done = hashlib.sha256(), 0
    try:
        size = path.stat().st_size
        with path.open("rb", buffering=0) as file:
            while block := file.read(BLOCK):
                digest.update(block)
                done += len(block)
                if progress is not None:
                    progress(done, size)
    except OSError as e:
        raise FileError(one_line(f"'{path}' cannot be read: {e.strerror or e}.")) from None
    return digest.hexdigest()


def autov1_hash(path: Path) -> str:
    """A1111's first model hash (``ss_sd_model_hash``, Civitai's AutoV1): sha256 of 64 KiB at 1 MiB, 8 hex digits."""
    try:
        with path.open("rb") as file:
            file.seek(0x100000)
            return hashlib.sha256(file.read(0x10000)).hexdigest()[:8]
    except OSError as e:
        raise FileError(one_line(f"'{path}' cannot be read: {e.strerror or e}.")) from None


def tensor_digest(tensor: Tensor) -> str:
    """Identity of a tensor's content (dtype, shape, bytes) as 64 hex digits, whatever its strides or device."""
    dtype = DTYPE_NAMES.get(tensor.dtype, str(tensor.dtype))
    digest = hashlib.sha256(f"{dtype}{tuple(tensor.shape)}".encode())
    digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def sshs_hashes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[str, str]:
    """(``sshs_model_hash``, ``sshs_legacy_hash``) of an adapter that `write_safetensors` would write.

    The first is sha256 of all bytes behind the header, which is Civitai's AutoV3 and what A1111 computes from the file itself;
    the second is sha256 of 64 KiB at 1 MiB of the file, 8 hex digits, with only the ``ss_`` metadata in its header, so that
    edits of other metadata leave it alone (sd-scripts, ``precalculate_safetensors_hashes``).
    """
    ordered = data_order(tensor_info(name, t) for name, t in tensors.items())
    header = build_header(ordered, {k: v for k, v in metadata.items() if k.startswith("ss_")})
    model, legacy = hashlib.sha256(), _Window(0x100000, 0x110000)
    legacy.update(header)
    for info in ordered:
        content = tensor_bytes(tensors[info.name])
        model.update(content)
        legacy.update(content)
    return model.hexdigest(), legacy.digest.hexdigest()[:8]


class _Window:
    """sha256 of bytes [start, stop) of a stream."""

    def __init__(self, start: int, stop: int) -> None:
        self.digest = hashlib.sha256()
        self._start, self._stop, self._position = start, stop, 0

    def update(self, content: bytes | memoryview) -> None:
        first, last = (min(max(edge - self._position, 0), len(content)) for edge in (self._start, self._stop))
        self.digest.update(content[first:last])
        self._position += len(content)
