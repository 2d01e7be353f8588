"""An opened base model: its layers by name, their weights read one at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from lorax.checkpoint.decode import read_float
from lorax.digest import autov1_hash, sha256_file
from lorax.errors import UnknownFormat, nearest
from lorax.layers import Component, Layer, LayerId
from lorax.safefile import TensorFile
from lorax.structure import Arch


@dataclass(frozen=True)
class BaseHashes:
    """By which other programs know a checkpoint file."""

    sha256: str
    """Of the whole file: ``ss_new_sd_model_hash``; its first 10 digits are A1111's model hash."""
    autov1: str
    """A1111's old 8-digit hash: ``ss_sd_model_hash``."""


@dataclass(frozen=True)
class About:
    """What is known of a base beside its weights."""

    name: str
    """Stem of the file, or name of the folder."""
    paths: tuple[Path, ...]
    layout: str
    """``single file``, ``UNet file``, ``diffusers folder``, ``UNet folder`` or ``separate files``."""
    prediction_type: str | None
    """``epsilon``, ``v`` or ``edm``, as modelspec names them; None where nothing says it."""
    notes: tuple[str, ...]
    """One-line facts that the user should know."""
    counted: Mapping[str, int]
    """Tensors that hold no layer and are known: ``of the VAE`` → 248."""
    unused: tuple[str, ...]
    """Tensors that belong to nothing that we know."""


class Checkpoint:
    """A base model, open for reading; a context manager. Weights come from the file, one layer in memory at a time."""

    def __init__(self, arch: Arch, about: About, layers: Mapping[LayerId, Layer], files: Mapping[Component, TensorFile]) -> None:
        self.arch = arch
        self.about = about
        self.layers = layers
        """In order of execution, the UNet's first."""
        self._files = files
        self._open = ExitStack()
        self._hashes: BaseHashes | None = None

    @property
    def name(self) -> str:
        return self.about.name

    @property
    def paths(self) -> tuple[Path, ...]:
        return self.about.paths

    @property
    def layout(self) -> str:
        return self.about.layout

    @property
    def prediction_type(self) -> str | None:
        return self.about.prediction_type

    @property
    def notes(self) -> tuple[str, ...]:
        return self.about.notes

    @property
    def unused(self) -> tuple[str, ...]:
        return self.about.unused

    @property
    def components(self) -> tuple[Component, ...]:
        """The networks that the files hold."""
        return tuple(component for component in Component if component in self._files)

    @property
    def dtypes(self) -> str:
        """Stored dtypes of the layers, the most frequent first: ``F16, F32``."""
        counts = Counter(self.stored_dtype(layer) for layer in self.layers.values())
        return ", ".join(dtype for dtype, _ in counts.most_common())

    def layer(self, layer: LayerId) -> Layer:
        """The layer of this name; UnknownFormat with the nearest one where there is none."""
        if layer not in self.layers:
            raise UnknownFormat(f"'{self.name}' has no layer {layer}.{nearest(str(layer), map(str, self.layers))}")
        return self.layers[layer]

    def file(self, component: Component) -> TensorFile:
        """The file that holds a component's tensors."""
        return self._files[component]

    def read(self, layer: Layer, rows: int | None = None) -> Tensor:
        """The weight in fp32 on the CPU, in the layer's shape, fp8 times its scale. MalformedCheckpoint for NaN or infinity.

        rows: only the first so many of them, and nothing else is read.
        """
        first, last = layer.rows or (0, layer.shape[0])
        part = layer.rows if rows is None else (first, min(first + rows, last))
        return read_float(self._files[layer.id.component], layer.tensor, part)

    def read_bias(self, layer: Layer) -> Tensor | None:
        """The bias in fp32, [out]; None where the layer has none."""
        return None if layer.bias is None else read_float(self._files[layer.id.component], layer.bias, layer.rows)

    def stored_dtype(self, layer: Layer) -> str:
        """safetensors' name of the weight's dtype in the file, e.g. ``F16``."""
        return self._files[layer.id.component].tensors[layer.tensor].dtype

    def hashes(self, progress: Callable[[int, int], None] | None = None) -> BaseHashes | None:
        """Hashes of the file, computed at the first call (a pass over all its bytes); None for folders and several files.

        progress: called with (bytes done, bytes in all).
        """
        if self._hashes is None and len(self.paths) == 1 and self.paths[0].is_file():
            self._hashes = BaseHashes(sha256_file(self.paths[0], progress), autov1_hash(self.paths[0]))
        return self._hashes

    def owns(self, stack: ExitStack) -> Checkpoint:
        """Take over the closing of `stack`, which holds the open files."""
        self._open = stack
        return self

    def close(self) -> None:
        self._open.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
