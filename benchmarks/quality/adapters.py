"""Training of adapters in every kind that the table has, and their files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.quality.shapes import Shape
from benchmarks.quality.stage import Material, Stage, rate_at
from lorax import BaseHint, Checkpoint, Factors, LayerId, LayerKind, LayerSpec, write_adapter, write_safetensors
from lorax.archs import kohya_name
from lorax.train import Network

Kind = Literal["lora", "lorax", "lorax-full", "loha"]
KINDS: tuple[Kind, ...] = ("lora", "lorax", "lorax-full", "loha")
TITLES = {"lora": "LoRA, r = 8", "lorax": "LoRA-X, σ, k = 20", "lorax-full": "LoRA-X, full ΔΣ, k = 20", "loha": "LoHa, r = 4"}
RANK = 8
LOHA_RANK = 4
K = 20
"""About a third of the widths, as 320 is of SD1.5's."""
RATES: Mapping[Kind, float] = {"lora": 1e-2, "lorax": 8e-2, "lorax-full": 2e-2, "loha": 2e-2}
BATCH = 24

Deltas = Mapping[LayerId, Tensor]
"""Delta of each layer's weight, in the weight's own shape."""


def train_adapter(
    stage: Stage, shape: Shape, unet: Any, kind: Kind, material: Material, steps: int, seed: int, base: Checkpoint, path: Path
) -> None:
    """Train one adapter on a frozen UNet and write its file, which names its base."""
    learner = _Native(unet, shape, kind == "lorax-full", base) if kind.startswith("lorax") else _make(unet, shape, kind, seed)
    optimizer = torch.optim.Adam(learner.parameters(), lr=RATES[kind])
    generator = torch.Generator().manual_seed(seed + 5)
    try:
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = rate_at(step, steps, RATES[kind], 15)
            batch = stage.random_batch(material, BATCH, generator)
            with learner.on():
                loss = functional.mse_loss(stage.predict(unet, batch, shape.xl), batch.velocity)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    finally:
        learner.close()
    learner.write(path, shape, base)


@contextmanager
def applied(unet: Any, deltas: Deltas, strength: float = 1.0) -> Iterator[None]:
    """The UNet with deltas added to its weights, for as long as the block runs."""
    before = {i: unet.get_submodule(i.path).weight.detach().clone() for i in deltas}
    try:
        add(unet, deltas, strength)
        yield
    finally:
        with torch.no_grad():
            for i, weight in before.items():
                unet.get_submodule(i.path).weight.copy_(weight)


@torch.no_grad()
def add(unet: Any, deltas: Deltas, strength: float = 1.0) -> None:
    """Deltas into the UNet's weights, for good."""
    for i, delta in deltas.items():
        weight = unet.get_submodule(i.path).weight
        weight.add_(strength * delta.reshape(weight.shape))


def is_adapted(spec: LayerSpec) -> bool:
    """Every linear layer and 1×1 convolution of the UNet's attentions, as sd-scripts' LoRA has them."""
    inside = spec.unit.kind in ("transformer", "attention")
    return inside and spec.id.component == "unet" and spec.kind in (LayerKind.LINEAR, LayerKind.CONV)


class _LowRank(nn.Module):
    """ΔW = up down for each layer; the base is what was there before plus the delta, in one functional weight."""

    def __init__(self, unet: Any, shape: Shape, seed: int) -> None:
        super().__init__()
        self.layers = {s.id: unet.get_submodule(s.id.path) for s in shape.arch.layers() if is_adapted(s)}
        self.generator = torch.Generator().manual_seed(seed)
        self.values = nn.ParameterDict()
        for i, layer in self.layers.items():
            for name, value in self.start(layer.weight).items():
                self.values[_key(i, name)] = nn.Parameter(value)

    def start(self, weight: Tensor) -> dict[str, Tensor]:
        out, columns = weight.flatten(1).shape
        rank = min(RANK, out, columns)
        return {"up": torch.zeros(out, rank), "down": self.normal(rank, columns) / columns**0.5}

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def value(self, i: LayerId, name: str) -> Tensor:
        return self.values[_key(i, name)]

    def delta(self, i: LayerId) -> Tensor:
        return self.value(i, "up") @ self.value(i, "down")

    @contextmanager
    def on(self) -> Iterator[None]:
        """Each layer's forward pass with its delta."""
        for i, layer in self.layers.items():
            layer.forward = _forward(layer, self.delta(i))
        try:
            yield
        finally:
            for layer in self.layers.values():
                del layer.forward

    def close(self) -> None:
        """Nothing stays on the UNet between steps."""

    def write(self, path: Path, shape: Shape, base: Checkpoint) -> None:
        modules = {i: Factors(self.value(i, "up").detach(), self.value(i, "down").detach()) for i in self.layers}
        shapes = {i: tuple(layer.weight.shape) for i, layer in self.layers.items()}
        write_adapter(
            path, modules, shape.arch, shapes=shapes, dtype=torch.float32, metadata=trained_on(base, "networks.lora"), overwrite=True
        )


class _Hadamard(_LowRank):
    """LyCORIS' LoHa: ΔW = (w1_a w1_b) ⊙ (w2_a w2_b)."""

    def start(self, weight: Tensor) -> dict[str, Tensor]:
        out, columns = weight.flatten(1).shape
        return {
            "hada_w1_a": self.normal(out, LOHA_RANK) * 0.1,
            "hada_w1_b": self.normal(LOHA_RANK, columns),
            "hada_w2_a": torch.zeros(out, LOHA_RANK),
            "hada_w2_b": self.normal(LOHA_RANK, columns) * 0.1 / LOHA_RANK**0.5,
        }

    def delta(self, i: LayerId) -> Tensor:
        first, second = (self.value(i, f"hada_w{n}_a") @ self.value(i, f"hada_w{n}_b") for n in (1, 2))
        return first * second

    def write(self, path: Path, shape: Shape, base: Checkpoint) -> None:
        tensors: dict[str, Tensor] = {}
        for i in self.layers:
            name = kohya_name(shape.arch, i)
            tensors[f"{name}.alpha"] = torch.tensor(float(LOHA_RANK))
            for leaf in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"):
                tensors[f"{name}.{leaf}"] = self.value(i, leaf).detach().contiguous()
        write_safetensors(path, tensors, trained_on(base, "lycoris.kohya"), overwrite=True)


class _Native:
    """LoRA-X by the project's own training network."""

    def __init__(self, unet: Any, shape: Shape, full: bool, base: Checkpoint) -> None:
        layers = {kohya_name(shape.arch, s.id): unet.get_submodule(s.id.path) for s in shape.arch.layers() if is_adapted(s)}
        self.network = Network(layers, K, full=full, arch=shape.arch)
        hashes = base.hashes()
        self.network.base = BaseHint(base.paths[0].name, hashes.sha256 if hashes else None, hashes.autov1 if hashes else None)
        self.network.put_on(device="cpu")

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.network.parameters()

    @contextmanager
    def on(self) -> Iterator[None]:
        yield

    def close(self) -> None:
        self.network.take_off()

    def write(self, path: Path, shape: Shape, base: Checkpoint) -> None:
        self.network.save(path, trained_on(base, "lorax.train"), dtype=torch.float32, overwrite=True)


def _make(unet: Any, shape: Shape, kind: Kind, seed: int) -> _LowRank:
    return {"lora": _LowRank, "loha": _Hadamard}[kind](unet, shape, seed)


def _key(i: LayerId, name: str) -> str:
    return f"{i.path.replace('.', '_')}__{name}"


def _forward(layer: nn.Module, delta: Tensor) -> Callable[[Tensor], Tensor]:
    weight = layer.weight + delta.reshape(layer.weight.shape)
    if isinstance(layer, nn.Linear):
        return lambda x: functional.linear(x, weight, layer.bias)
    return lambda x: layer._conv_forward(x, weight, layer.bias)


def trained_on(base: Checkpoint, module: str) -> dict[str, str]:
    """What sd-scripts says of the base in an adapter's metadata."""
    told = {
        "ss_sd_model_name": base.paths[0].name,
        "ss_base_model_version": base.arch.base_model_version,
        "ss_network_module": module,
        "ss_network_dim": str(RANK),
    }
    hashes = base.hashes()
    return {**told, "ss_new_sd_model_hash": hashes.sha256, "ss_sd_model_hash": hashes.autov1} if hashes else told
