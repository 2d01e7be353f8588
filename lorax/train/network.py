"""LoRA-X on a model: put on, taken off, saved and loaded."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from lorax.adapter import BaseHint
from lorax.bases import Bases
from lorax.device import resolve_device
from lorax.errors import LoraxError
from lorax.linalg import flatten_weight
from lorax.structure import Arch
from lorax.train import files
from lorax.train.forms import FORMS, Form
from lorax.train.module import SpectralLayer, adaptable

DEFAULT_K = 320
"""The paper's k; cut to the rank of each layer's weight."""

WeightOf = Callable[[str, nn.Module], Tensor]
"""(module name, layer) → the weight that the bases are taken from."""


class Network(nn.Module):
    """LoRA-X on layers of a model, by name; its parameters are what is trained.

    layers: module name of a file → layer. Names must not contain dots; those of an `arch` are kohya's.
    """

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        k: int = DEFAULT_K,
        *,
        full: bool = False,
        form: Form = "auto",
        arch: Arch | None = None,
        self_contained: bool = False,
    ) -> None:
        super().__init__()
        if k < 1:
            raise LoraxError(f"k is the number of singular directions to train on, at least 1; it was {k}.")
        if form not in FORMS:
            raise LoraxError(f"unknown form '{form}': expected one of {', '.join(FORMS)}.")
        wrong = [name for name, layer in layers.items() if not adaptable(layer) or "." in name]
        if wrong:
            raise LoraxError(f"'{wrong[0]}' is no linear layer or convolution without groups, or its name has a dot in it.")
        if not layers:
            raise LoraxError("no layer was chosen: give a model with linear layers, and exclude fewer of them.")
        self.k, self.full, self.arch, self.self_contained = k, full, arch, self_contained
        self.form: Form = form
        self.base = BaseHint()
        self.multiplier = 1.0
        self._layers = dict(layers)

    @property
    def modules_by_name(self) -> dict[str, SpectralLayer]:
        """The layers' adapters, once they are on."""
        return {name: child for name, child in self.named_children() if isinstance(child, SpectralLayer)}

    def put_on(self, bases: Bases | None = None, weight_of: WeightOf | None = None, device: str = "auto") -> None:
        """Compute the bases and take over the layers' forward passes.

        weight_of: where the weights come from; by default the live layers, whose weights must then be the base's own.
        """
        bases, where, present = bases or Bases(), resolve_device(device), self.modules_by_name
        for name, layer in self._layers.items():
            if name in present:
                present[name].apply_to()
                continue
            weight = weight_of(name, layer) if weight_of else live_weight(layer)
            with torch.no_grad():
                basis = bases.basis(flatten_weight(weight.detach().float()).to(where), self.k)
            adapter = SpectralLayer(layer, basis, full=self.full, form=self.form).to(live_weight(layer).device)
            adapter.multiplier = self.multiplier
            adapter.apply_to()
            self.add_module(name, adapter)

    def take_off(self) -> None:
        """Give all layers their own forward passes back; what was trained stays in the network."""
        for adapter in self.modules_by_name.values():
            adapter.remove()

    def set_multiplier(self, multiplier: float) -> None:
        """Strength of the adapter; 0 is the base."""
        self.multiplier = multiplier
        for adapter in self.modules_by_name.values():
            adapter.multiplier = multiplier

    @contextmanager
    def off(self) -> Generator[None, None, None]:
        """The base alone, for as long as the block runs."""
        before = self.multiplier
        self.set_multiplier(0.0)
        try:
            yield
        finally:
            self.set_multiplier(before)

    def save(
        self, path: str | Path, metadata: Mapping[str, str] | None = None, dtype: torch.dtype = torch.float16, *, overwrite: bool = False
    ) -> None:
        """Write a LoRA-X file (docs/format.md); with factors where ΔΣ is full or `self_contained` is asked for."""
        files.write(Path(path), self.modules_by_name, self._stored(), metadata or {}, dtype, overwrite)

    def load(self, path: str | Path) -> files.Loaded:
        """Take ΔΣ from a LoRA-X file. BaseMismatch where it was trained on another base; the network is then as it was."""
        return files.load(Path(path), self.modules_by_name, self._stored())

    def clamp_norms(self, largest: float) -> list[float]:
        """Scale every ΔW down to a Frobenius norm of at most `largest`; ‖ΔW‖ = ‖ΔΣ‖. Returns the norms as they were."""
        norms: list[float] = []
        with torch.no_grad():
            for adapter in self.modules_by_name.values():
                norm = float(adapter.sigma.float().norm())
                norms.append(norm)
                if norm > largest:
                    adapter.sigma.mul_(largest / norm)
        return norms

    def _stored(self) -> files.Stored:
        return files.Stored(self.arch, self.k, self.full, self.self_contained, self.base)


def live_weight(layer: nn.Module) -> Tensor:
    """The weight of a layer in memory."""
    weight = layer.weight
    if not isinstance(weight, Tensor):
        raise LoraxError(f"{type(layer).__name__} has no weight")
    return weight


def attach(
    model: nn.Module,
    k: int = DEFAULT_K,
    *,
    wanted: Callable[[str, nn.Module], bool] | None = None,
    full: bool = False,
    form: Form = "auto",
    bases: Bases | None = None,
    base: BaseHint | None = None,
) -> Network:
    """Put LoRA-X on the linear layers and convolutions of any model, and return what is to be trained.

    wanted: (path of the module, the layer) → whether to adapt it; all by default. k is cut to the rank of each weight.
    The model's own parameters are frozen by nobody: give the optimizer ``network.parameters()`` alone.
    """
    layers: dict[str, nn.Module] = {}
    for path, layer in model.named_modules():
        if adaptable(layer) and (wanted is None or wanted(path, layer)):
            name = f"lorax_{path.replace('.', '_')}"
            if name in layers:
                raise LoraxError(f"two modules would both be called '{name}' in a file: leave one of them out with wanted=.")
            layers[name] = layer
    network = Network(layers, k, full=full, form=form)
    network.base = base or BaseHint()
    network.put_on(bases, device=_device_of(list(layers.values())))
    return network


def _device_of(layers: Sequence[nn.Module]) -> str:
    return str(live_weight(layers[0]).device)
