"""Fingerprints of a delta: whether a rebuilt ΔW is the one that was trained, told by four numbers a module.

``f_j = ⟨ΔW, G_j⟩`` with ``G_j = a_j b_jᵀ``, a_j ∈ {±1}^out and b_j ∈ {±1}^(in·kh·kw) from a generator that is the same on every
platform. For an error E of the delta, ``E⟨E, G⟩² = ‖E‖²_F``: the mean of (f_j − f′_j)² estimates the squared error without bias.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lorax.adapter import Adapter, Fingerprint
from lorax.errors import BaseMismatch, one_line
from lorax.layers import LayerId
from lorax.linalg import Factors, energy

PROBES = 4
MAX_MEAN_ERROR = 0.02
"""Largest root mean square of the relative errors of all modules: an fp16 copy of the base gives about 0.01, a bf16 copy 0.03–0.09."""
MAX_MODULE_ERROR = 0.04
"""Largest relative error of one module. A module that is 1 % off is estimated above 2 % once in 300 times, above 4 % never."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
Words = npt.NDArray[np.uint64]


def _mix(z: Words) -> Words:
    """The output function of splitmix64 (Steele, Lea, Flood 2014), modulo 2^64."""
    z = (z ^ (z >> np.uint64(30))) * _MIX[0]
    z = (z ^ (z >> np.uint64(27))) * _MIX[1]
    return z ^ (z >> np.uint64(31))


@lru_cache(maxsize=256)
def signs(probe: int, size: int, side: int) -> Tensor:
    """±1, [size], fp64: vector a (side 0) or b (side 1) of a probe.

    With s = mix(size·256 + side·16 + probe), word i is mix(s + (i + 1)·0x9E3779B97F4A7C15), i = 0, 1, …; entry 64·i + t is −1
    where bit t of word i (bit 0 the lowest) is set.
    """
    seed = _mix(np.array([size * 256 + side * 16 + probe], dtype=np.uint64))
    words = _mix(seed + np.arange(1, size // 64 + 2, dtype=np.uint64) * _GOLDEN)
    bits = (words[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    return torch.from_numpy(1.0 - 2.0 * bits.reshape(-1)[:size].astype(np.float64))


def fingerprint(delta: Factors | Tensor) -> Fingerprint:
    """⟨ΔW, G_j⟩ of a delta [out, in·kh·kw], j = 0…3; on factors as (aᵀ up)(down b), so nothing large is formed."""
    if isinstance(delta, Factors):
        rows, columns = delta.shape
        device, left, right = delta.up.device, delta.up.double(), delta.down.double()
    else:
        rows, columns = delta.shape
        device, left, right = delta.device, delta.double(), None
    a = torch.stack([signs(j, rows, 0) for j in range(PROBES)]).to(device)
    b = torch.stack([signs(j, columns, 1) for j in range(PROBES)]).to(device)
    inner = a @ left if right is None else (a @ left) @ right
    f = (inner * b).sum(1).tolist()
    return float(f[0]), float(f[1]), float(f[2]), float(f[3])


def relative_error(expected: Fingerprint, delta: Factors | Tensor) -> float:
    """Estimate of ‖ΔW − ΔW′‖_F / ‖ΔW′‖_F, where `expected` is of ΔW and `delta` is ΔW′."""
    found = fingerprint(delta)
    error = sum((x - y) ** 2 for x, y in zip(expected, found, strict=True)) / PROBES
    size = delta.energy() if isinstance(delta, Factors) else energy(delta)
    if size == 0.0:
        return 0.0 if error == 0.0 else float("inf")
    return (error / size) ** 0.5


@dataclass
class FingerprintCheck:
    """Compares rebuilt deltas with the fingerprints of a σ file; deltas that need no base are not in question."""

    adapter: Adapter
    errors: dict[LayerId, float] = field(default_factory=dict[LayerId, float])
    """Relative error by module, so far."""

    def add(self, layer: LayerId, delta: Factors | Tensor) -> None:
        """Take note of a module's delta as it came out on the base at hand."""
        native = self.adapter.native
        if native is not None and not native.self_contained and layer in native.fingerprints:
            self.errors[layer] = relative_error(native.fingerprints[layer], delta)

    @property
    def mean_error(self) -> float:
        """Root mean square of the errors of all modules."""
        return (sum(e * e for e in self.errors.values()) / len(self.errors)) ** 0.5 if self.errors else 0.0

    def require(self) -> None:
        """Raise BaseMismatch where the deltas are not the ones that were trained."""
        if not self.errors:
            return
        worst = max(self.errors, key=lambda layer: self.errors[layer])
        mean = self.mean_error
        if mean <= MAX_MEAN_ERROR and self.errors[worst] <= MAX_MODULE_ERROR:
            return
        raise BaseMismatch(
            one_line(
                f"'{self.adapter.name}' was trained on {self.adapter.base}; on the base given its deltas come out {mean:.1%} off"
                f" ({MAX_MEAN_ERROR:.0%} is allowed), worst {self.errors[worst]:.1%} in {worst}: give that base, in its own precision."
            )
        )
