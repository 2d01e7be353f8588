"""What is known of a weight's singular subspaces."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lorax.linalg import Factors


@dataclass(frozen=True, eq=False)
class SpectralBasis:
    """The top-k singular triplets of a weight, S descending.

    Signs are canonical: the entry of largest magnitude of the concatenation (u_i; v_i) is positive, so that
    ``basis(W)`` and ``basis(Wᵀ)`` are each other's transpose.
    """

    U: Tensor
    """[out, k], orthonormal columns"""
    S: Tensor
    """[k]"""
    V: Tensor
    """[in, k], orthonormal columns"""

    @property
    def k(self) -> int:
        return self.S.shape[0]

    def sliced(self, k: int) -> SpectralBasis:
        """The leading k of this basis."""
        return SpectralBasis(self.U[:, :k], self.S[:k], self.V[:, :k])


@dataclass(frozen=True, eq=False)
class Span:
    """Orthonormal bases of the top-k left and right singular subspaces; None stands for the whole space.

    Law: projecting twice is projecting once, and the rank of the delta never grows.
    """

    left: Tensor | None
    """[out, k], or None where ``U Uᵀ = I``"""
    right: Tensor | None
    """[in, k], or None where ``V Vᵀ = I``"""

    def project(self, delta: Factors) -> Factors:
        """``U Uᵀ ΔW V Vᵀ`` (Eq. 3) on the factors of ΔW: the [out, in] delta is never formed."""
        up = delta.up if self.left is None else self.left @ (self.left.T @ delta.up)
        down = delta.down if self.right is None else (delta.down @ self.right) @ self.right.T
        return Factors(up, down)

    def project_dense(self, delta: Tensor) -> Factors | Tensor:
        """Eq. 3 on a dense delta [out, in]: factors of rank k, or a dense delta where both sides are the whole space."""
        if self.left is not None:
            coordinates = self.left.T @ delta
            return Factors(self.left, coordinates if self.right is None else (coordinates @ self.right) @ self.right.T)
        return delta if self.right is None else Factors(delta @ self.right, self.right.T)


@dataclass(frozen=True, eq=False)
class Leading:
    """Approximate leading singular subspaces at k_sim, for similarity only."""

    U: Tensor
    """[out, k_sim]"""
    V: Tensor
    """[in, k_sim]"""
