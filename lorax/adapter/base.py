"""What every kind of adapter module can do, and the checks that they share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lorax.errors import MalformedAdapter, SourceNeeded
from lorax.linalg import Factors, flatten_weight


class AdapterModule(ABC):
    """What an adapter does to the weight of one layer.

    Tensors are kept as they are stored in the file; results are fp32.
    """

    kind: ClassVar[str]
    needs_base: ClassVar[bool] = False
    """`delta` needs the weight of the base that the adapter was trained on."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight: [out, in] or [out, in, kh, kw].

        [out, in·kh·kw] where the file does not tell the kernel; 0 in the place of a side that it does not tell at all.
        """

    @property
    def rank(self) -> int | None:
        """The rank that the file gives the module; None where it has none."""
        return None

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """[out, in·kh·kw] of the delta; 0 for a side that the file does not tell."""
        return self.shape[0], math.prod(self.shape[1:])

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether the module can change a weight of this shape, so far as the file tells."""
        mine, theirs = self.matrix_shape, (shape[0], math.prod(shape[1:]))
        return all(a in (0, b) for a, b in zip(mine, theirs, strict=True))

    @abstractmethod
    def delta(self, base: Tensor | None = None) -> Tensor:
        """ΔW as a matrix [out, in·kh·kw], fp32, with every scale of the file folded in.

        base: the source's weight of this layer, in any shape that flattens to the delta's; read where `needs_base`.
        Raises SourceNeeded without it, MalformedAdapter where it has another shape.
        """

    def factors(self) -> Factors | None:
        """ΔW exactly as factors, where such are smaller than the matrix and need no base; else None."""
        return None


@dataclass(frozen=True, eq=False)
class Offset:
    """What an adapter adds to a layer's 1-D parameters."""

    weight: Tensor | None = None
    """[width], added to a norm's scale"""
    bias: Tensor | None = None
    """[out], added to the bias"""


def source_matrix(module: AdapterModule, base: Tensor | None) -> Tensor:
    """The source's weight as an fp32 matrix of the module's shape."""
    if base is None:
        raise SourceNeeded(f"A {module.kind} module changes the weight of its own base: that base is needed to use it.")
    matrix = flatten_weight(base).float()
    if not module.fits(base.shape):
        raise MalformedAdapter(f"The {module.kind} module is for a weight of {list(module.shape)}, the base has {list(base.shape)}.")
    return matrix


def if_smaller(factors: Factors) -> Factors | None:
    """`factors` where they hold fewer numbers than the matrix, else None."""
    out, columns = factors.shape
    return factors if factors.rank * (out + columns) < out * columns else None


def require(condition: bool, message: str) -> None:
    """Raise MalformedAdapter unless `condition` holds."""
    if not condition:
        raise MalformedAdapter(message)


def shapes(**tensors: Tensor | None) -> str:
    """``name [a, b], …`` of the tensors, for messages."""
    return ", ".join(f"{name} {list(t.shape)}" for name, t in tensors.items() if t is not None)
