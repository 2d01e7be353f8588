"""Names of the layers of a base model, independent of any file layout.

A layer's canonical name is its component and its module path in diffusers (UNet) or transformers (text encoders).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal


class _Word(str, Enum):
    """Members that are their words, by str's own functions: Enum's are slow where thousands of layers are named."""

    __str__ = str.__str__
    __format__ = str.__format__
    __hash__ = str.__hash__


class Component(_Word):
    """A network of the pipeline that adapters can touch."""

    UNET = "unet"
    TE1 = "te1"
    """The first text encoder: CLIP-L of SD1 and SDXL, OpenCLIP-H of SD2."""
    TE2 = "te2"
    """SDXL's OpenCLIP-G."""


class LayerKind(_Word):
    """What operation the layer's weight belongs to."""

    LINEAR = "linear"
    CONV = "conv"
    NORM = "norm"
    EMBEDDING = "embedding"


@dataclass(frozen=True, order=True)
class LayerId:
    """The canonical name of a layer, the same in every file layout."""

    component: Component
    path: str

    def __str__(self) -> str:
        return f"{self.component}.{self.path}"


@dataclass(frozen=True)
class Unit:
    """A block that exists or is missing as a whole: what block matching matches."""

    component: Component
    path: str
    """Module path of the block, e.g. ``down_blocks.1.attentions.0.transformer_blocks.3``; empty for single layers."""
    kind: str
    """``transformer``, ``attention`` (its proj_in, proj_out and norm), ``resnet``, ``sampler``, ``text`` or ``fixed``."""
    section: str
    """``down``, ``mid``, ``up``, ``text`` or ``fixed``; units are matched within a section."""
    index: int
    """Position in the order of execution among all units of the component."""

    def __str__(self) -> str:
        return f"{self.component}.{self.path}" if self.path else f"{self.component}"


@dataclass(frozen=True)
class Stored:
    """Where a layer's weight lies in one file layout."""

    module: str
    """Module name in the layout, without ``.weight`` and without the component's prefix."""
    part: int = 0
    parts: int = 1
    """The layer is row block `part` of `parts` equal ones (OpenCLIP stores q, k and v fused)."""
    suffix: str = ".weight"
    """What follows the module name; OpenCLIP's fused projection is called ``in_proj_weight``."""


@dataclass(frozen=True)
class LayerSpec:
    """A layer as the architecture declares it, without shapes."""

    id: LayerId
    kind: LayerKind
    unit: Unit
    role: str
    """Path inside the unit, e.g. ``attn1.to_q``: layers of the same role and shape can be compared."""
    single_file: Stored
    """Its place in the original (LDM, SGM, OpenCLIP) single-file layout."""
    diffusers: Stored
    """Its place in a diffusers or transformers folder."""


SpaceKind = Literal["fixed", "timestep", "channels", "heads", "gated"]
"""How the axis of a space may differ between two models that compute the same:

- ``fixed``: not at all (latent channels, vocabulary, sizes);
- ``timestep``: sinusoids of the timestep, whose number follows the model's first width;
- ``channels``: by order, for a norm or an activation acts on each channel (GroupNorm: within its groups);
- ``heads``: by the order of the heads and a rotation within each;
- ``gated``: by order, the two halves of a GEGLU together; its linear half may change sign."""


@dataclass(frozen=True)
class ChannelSpace:
    """A set of channels that one or more layers write, and others read."""

    component: Component
    name: str
    """Where it begins, e.g. ``down_blocks.1.resnets.0`` for the stream that this residual block starts."""
    kind: SpaceKind

    def __str__(self) -> str:
        return f"{self.component}.{self.name}"


@dataclass(frozen=True)
class Sides:
    """The channel spaces that a layer's weight [out, in, …] lies between."""

    out: ChannelSpace
    """For a ``gated`` space the rows are [linear half; gate], twice the space's size."""
    inputs: tuple[ChannelSpace, ...]
    """More than one where the input is a concatenation (skips; the context of two text encoders)."""


@dataclass(frozen=True)
class Layer:
    """A layer of one opened checkpoint."""

    spec: LayerSpec
    shape: tuple[int, ...]
    """Shape of the weight: [out, in] or [out, in, kh, kw]; [width] for norms."""
    tensor: str
    """Name of the tensor in the file."""
    rows: tuple[int, int] | None = None
    """Row range [start, stop) within a fused tensor, or None for all of it."""
    bias: str | None = None
    """Name of the bias tensor (same rows), or None where the layer has none."""

    @property
    def id(self) -> LayerId:
        return self.spec.id

    @property
    def out_features(self) -> int:
        return self.shape[0]

    @property
    def in_features(self) -> int:
        """Columns of the flattened weight: in·kh·kw."""
        size = 1
        for n in self.shape[1:]:
            size *= n
        return size
