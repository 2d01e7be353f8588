"""LoRA-X on one layer: frozen bases of its weight, trainable ΔΣ (LoRA-X, arXiv 2501.16559, Sec. 3)."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from lorax.adapter import Fingerprint, Spectral
from lorax.errors import LoraxError
from lorax.formats.fingerprint import PROBES, signs
from lorax.linalg import Factors
from lorax.spectral import SpectralBasis
from lorax.train.forms import Form, choose_form, compute_dtype

Adaptable = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def adaptable(layer: nn.Module) -> bool:
    """Linear layers and convolutions without groups, of floating-point weights."""
    if isinstance(layer, _CONVS) and layer.groups != 1:
        return False
    return isinstance(layer, (nn.Linear, *_CONVS)) and layer.weight.is_floating_point()


class SpectralLayer(nn.Module):
    """``ΔW = U_k ΔΣ V_kᵀ`` beside one layer; ΔΣ is a diagonal σ [k], or full [k, k].

    Laws: at ΔΣ = 0, where it starts, the layer's output is the base's, bit for bit; ``U Uᵀ ΔW V Vᵀ = ΔW``; both forms of the
    forward pass agree; after `remove` the layer is what it was. The layer itself is not a submodule and never trained here.
    """

    U: Tensor
    """[out, k], not in the state dict: it follows from the base"""
    V: Tensor
    """[in·kh·kw, k], likewise"""

    def __init__(self, layer: nn.Module, basis: SpectralBasis, *, full: bool = False, form: Form = "auto") -> None:
        super().__init__()
        if not isinstance(layer, (nn.Linear, *_CONVS)) or not adaptable(layer):
            raise LoraxError(f"LoRA-X is for linear layers and convolutions without groups, not for {type(layer).__name__}.")
        self._layer: tuple[Adaptable] = (layer,)  # a tuple, so that it does not become a submodule
        self._base_forward = None
        self.form: Form = form
        self.multiplier = 1.0
        self.k = basis.k
        self.register_buffer("U", basis.U.contiguous(), persistent=False)
        self.register_buffer("V", basis.V.contiguous(), persistent=False)
        self.sigma = nn.Parameter(torch.zeros((basis.k, basis.k) if full else (basis.k,), device=basis.U.device))
        self._probes = _probes(basis)

    @property
    def layer(self) -> Adaptable:
        return self._layer[0]

    @property
    def full(self) -> bool:
        return self.sigma.ndim == 2

    # on and off

    def apply_to(self) -> None:
        """Take over the layer's forward pass."""
        if self._base_forward is None:
            self._base_forward = self.layer.forward
            self.layer.forward = self.forward

    def remove(self) -> None:
        """Give the layer its own forward pass back."""
        if self._base_forward is not None:
            del self.layer.forward  # the instance's attribute: the class's method shows again
            if self.layer.forward != self._base_forward:
                self.layer.forward = self._base_forward  # somebody had replaced it before us
            self._base_forward = None

    # the forward pass

    def forward(self, input: Tensor) -> Tensor:  # the layer's own name for it
        x = input
        base = self._base_forward or self.layer.forward
        if self.multiplier == 0:
            return base(x)
        dtype = compute_dtype(x)
        U, V = self._bases(x.device, dtype)
        form = self.form
        if form == "auto":
            form = choose_form(U.shape[0], V.shape[0], self.k, self._tokens(x), dtype)
        if form == "merged":
            delta = self._delta(U, V).reshape(self.layer.weight.shape)
            return self._with_weight(x.to(dtype), self.layer.weight.to(dtype) + self.multiplier * delta)
        return base(x) + self.multiplier * self._factored(x.to(dtype), U, V)

    def _factored(self, x: Tensor, U: Tensor, V: Tensor) -> Tensor:
        sigma = self.sigma.to(x.dtype)
        layer = self.layer
        if isinstance(layer, nn.Linear):
            inner = functional.linear(x, V.T)
            return functional.linear(functional.linear(inner, sigma) if self.full else inner * sigma, U)
        thin = V.T.reshape(self.k, *layer.weight.shape[1:])
        inner = layer._conv_forward(x, thin, None)  # type: ignore[arg-type]  # knows stride, padding and its mode
        ones = (1,) * (layer.weight.ndim - 2)
        up = self._scaled(U, sigma)
        return _pointwise(inner, up.reshape(*up.shape, *ones))

    def _delta(self, U: Tensor, V: Tensor) -> Tensor:
        return self._scaled(U, self.sigma.to(U.dtype)) @ V.T

    def _scaled(self, U: Tensor, sigma: Tensor) -> Tensor:
        return U @ sigma if self.full else U * sigma

    def _with_weight(self, x: Tensor, weight: Tensor) -> Tensor:
        layer = self.layer
        bias = None if layer.bias is None else layer.bias.to(x.dtype)
        if isinstance(layer, nn.Linear):
            return functional.linear(x, weight, bias)
        return layer._conv_forward(x, weight, bias)  # type: ignore[arg-type]

    def _tokens(self, x: Tensor) -> int:
        layer = self.layer
        if isinstance(layer, nn.Linear):
            return x.numel() // layer.in_features
        return x.numel() // (layer.in_channels * prod(layer.stride))

    def _bases(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The bases where and as the pass computes; they stay so, because trainers cast models after adapters were put on."""
        if self.U.dtype != dtype or self.U.device != device:
            for name, basis in (("U", self.U), ("V", self.V)):
                self.register_buffer(name, basis.to(device, dtype), persistent=False)
        return self.U, self.V

    # what was trained

    def basis(self) -> SpectralBasis:
        """The bases in fp32 on the CPU, as exact as the training computed with them (S is not kept and is zero)."""
        return SpectralBasis(self.U.detach().float().cpu(), torch.zeros(self.k), self.V.detach().float().cpu())

    def stored_sigma(self, dtype: torch.dtype) -> Tensor:
        """ΔΣ as a file of this dtype holds it."""
        return self.sigma.detach().float().cpu().to(dtype)

    def factors(self) -> Factors:
        """ΔW as balanced factors, [out, r] and [r, in·kh·kw]."""
        basis, sigma = self.basis(), self.sigma.detach().float().cpu()
        return Factors(basis.U @ sigma, basis.V.T.contiguous()).compressed() if self.full else Spectral(sigma).on(basis)

    def coordinates(self, delta: Factors) -> Tensor:
        """``Uᵀ ΔW V`` of a delta: [k, k], or its diagonal [k]."""
        basis = self.basis()
        inside = (basis.U.T @ delta.up) @ (delta.down @ basis.V)
        return inside if self.full else inside.diagonal()

    def fingerprint(self, sigma: Tensor) -> Fingerprint:
        """⟨U ΔΣ Vᵀ, G_j⟩ from the bases as they were computed, in whatever precision they are kept now."""
        left, right = self._probes
        values = sigma.detach().double().cpu()
        inner = left @ values if values.ndim == 2 else left * values
        f = (inner * right).sum(1).tolist()
        return float(f[0]), float(f[1]), float(f[2]), float(f[3])


def _probes(basis: SpectralBasis) -> tuple[Tensor, Tensor]:
    """``a_jᵀ U`` and ``b_jᵀ V``, [4, k] each, fp64."""
    U, V = basis.U.double().cpu(), basis.V.double().cpu()
    a = torch.stack([signs(j, U.shape[0], 0) for j in range(PROBES)])
    b = torch.stack([signs(j, V.shape[0], 1) for j in range(PROBES)])
    return a @ U, b @ V


def _pointwise(x: Tensor, weight: Tensor) -> Tensor:
    convolve = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}[weight.ndim]
    return convolve(x, weight)
