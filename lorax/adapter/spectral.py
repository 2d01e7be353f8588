"""The native LoRA-X module: numbers on the base's own singular vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lorax.adapter.base import AdapterModule, require, shapes, source_matrix
from lorax.linalg import Factors
from lorax.spectral import SpectralBasis, compute_basis


@dataclass(frozen=True, eq=False)
class Spectral(AdapterModule):
    """``ΔW = U_k diag(σ) V_kᵀ`` on the top-k singular vectors of the source's weight (LoRA-X, arXiv 2501.16559).

    Joint sign flips of (u_i, v_i) cancel, so only the order of the singular values is a convention: descending.
    The file does not tell the shape; it is the base's.
    """

    kind: ClassVar[str] = "lorax"
    needs_base: ClassVar[bool] = True
    sigma: Tensor
    """[k]"""

    def __post_init__(self) -> None:
        require(self.sigma.ndim == 1 and self.sigma.numel() > 0, f"σ is one number per singular vector, not {shapes(sigma=self.sigma)}.")

    @property
    def shape(self) -> tuple[int, ...]:
        return 0, 0

    @property
    def rank(self) -> int:
        return self.sigma.numel()

    def on(self, basis: SpectralBasis) -> Factors:
        """The delta as factors on the source's basis, √|σ| balanced and the sign in `up`.

        Values beyond the vectors that the basis has are left out: the fingerprints tell whether that matters.
        """
        k = min(self.sigma.numel(), basis.k)
        sigma = self.sigma[:k].float().to(basis.U.device)
        root = sigma.abs().sqrt()
        return Factors(basis.U[:, :k] * (root * sigma.sign()), root[:, None] * basis.V[:, :k].T)

    def delta(self, base: Tensor | None = None) -> Tensor:
        source = source_matrix(self, base)
        return self.on(compute_basis(source, self.sigma.numel())).dense()
