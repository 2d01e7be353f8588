"""Training of the bases: a source, its relatives, and a stranger."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.quality.shapes import Shape, make_unet
from benchmarks.quality.stage import Material, Stage, rate_at

BATCH = 24
RATE = 1.5e-3
Told = Callable[[int, int, float], None]


def train_source(stage: Stage, shape: Shape, seed: int, material: Material, steps: int, told: Told) -> Any:
    """A base from scratch."""
    unet = make_unet(shape, seed)
    return _fit(stage, unet, shape, material, steps, seed, RATE, told)


def fine_tune(stage: Stage, shape: Shape, source: Any, material: Material, steps: int, seed: int, told: Told) -> Any:
    """A long fine-tune on another domain."""
    return _fit(stage, copy.deepcopy(source), shape, material, steps, seed, RATE * 0.6, told)


def distil_base(
    stage: Stage,
    shape: Shape,
    pruned: Any,
    source: Any,
    material: Material,
    steps: int,
    seed: int,
    told: Told,
    kept: dict[str, Tensor] | None = None,
) -> Any:
    """The pruned model learns the data, the source's predictions, and the source's features at the ends of the blocks, as
    BK-SDM (arXiv 2305.15798) and SSD-1B did.

    kept: for a model cut in width, the source's channels that are left at each block's end.
    """
    ours, theirs = _Features(pruned), _Features(source)
    shared = [name for name in ours.ends if name in theirs.ends]

    def loss(batch: Any, predicted: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = stage.predict(source, batch, shape.xl)
        total = 0.5 * functional.mse_loss(predicted, batch.velocity) + functional.mse_loss(predicted, wanted)
        for name in shared:
            feature = theirs.seen[name] if kept is None else theirs.seen[name][:, kept[name]]
            total = total + functional.mse_loss(ours.seen[name], feature) / feature.var() / len(shared)
        return total

    try:
        return _fit(stage, pruned, shape, material, steps, seed, RATE * 0.8, told, loss)
    finally:
        ours.close()
        theirs.close()


class _Features:
    """Outputs of the down, middle and up blocks in the last forward pass."""

    def __init__(self, unet: Any) -> None:
        self.seen: dict[str, Tensor] = {}
        self.ends = {f"down_blocks.{i}": block for i, block in enumerate(unet.down_blocks)}
        self.ends |= {f"up_blocks.{i}": block for i, block in enumerate(unet.up_blocks)}
        self.ends |= {"mid_block": unet.mid_block}
        self._hooks = [block.register_forward_hook(self._keeper(name)) for name, block in self.ends.items()]

    def _keeper(self, name: str) -> Callable[..., None]:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            self.seen[name] = output[0] if isinstance(output, tuple) else output

        return keep

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()


def _fit(
    stage: Stage,
    unet: Any,
    shape: Shape,
    material: Material,
    steps: int,
    seed: int,
    rate: float,
    told: Told,
    loss_of: Callable[[Any, Tensor], Tensor] | None = None,
) -> Any:
    unet = unet.train().requires_grad_(True).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=rate, weight_decay=0.01, fused=True)
    generator = torch.Generator().manual_seed(seed + 1)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, steps, rate, 40)
        batch = stage.random_batch(material, BATCH, generator)
        predicted = stage.predict(unet, batch, shape.xl)
        loss = functional.mse_loss(predicted, batch.velocity) if loss_of is None else loss_of(batch, predicted)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        told(step, steps, float(loss.detach()))
    return unet.eval().requires_grad_(False).to(memory_format=torch.contiguous_format)
