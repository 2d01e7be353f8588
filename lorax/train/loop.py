"""The training loop: batches in, steps of the optimizer, what is written on the way."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch

from lorax.errors import LoraxError
from lorax.train.data import Slot, batches
from lorax.train.network import Network
from lorax.train.parts import Parts
from lorax.train.settings import TrainSettings
from lorax.train.step import Material, compute_loss, make_noise_schedule


@dataclass
class Run:
    """A run under way."""

    settings: TrainSettings
    parts: Parts
    network: Network
    material: Material
    accelerator: Any
    optimizer: Any
    step: int = 0
    losses: list[float] = field(default_factory=list[float])
    asked: bool = False
    """The user asked this process for an end."""
    stopped: bool = False
    """All processes know of it and end after the same step, with steps left to do."""

    @property
    def first(self) -> bool:
        """The one process of several that writes."""
        return bool(self.accelerator.is_main_process)


def train(run: Run, after_step: Callable[[Run], None]) -> None:
    """Run all steps that are left, or until the user stops it; `after_step` is told of each.

    LoraxError where the loss is no finite number any more; what was saved before stays.
    """
    schedule = make_noise_schedule(run.parts)
    share = _share(run)
    with _stopping(run):
        while run.step < run.settings.steps and not run.stopped:
            loss, run.stopped = _step(run, schedule, share)
            if not math.isfinite(loss):
                raise LoraxError(f"the loss is {loss} at step {run.step + 1}: lower --learning-rate, or use --precision bf16 or no.")
            run.step += 1
            run.losses.append(loss)
            after_step(run)
    run.stopped = run.stopped and run.step < run.settings.steps


def learning_rate(settings: TrainSettings, step: int) -> float:
    """Linear warm-up, then constant or a half cosine to zero."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    share = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def _step(run: Run, schedule: Any, share: Iterator[list[Slot]]) -> tuple[float, bool]:
    """The mean loss of all processes, and whether one of them was asked to stop."""
    settings, accelerator = run.settings, run.accelerator
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(settings, run.step)
    total = torch.zeros((), device=accelerator.device)
    for batch in islice(share, settings.accumulate):
        with accelerator.autocast():
            loss = compute_loss(run.parts, schedule, run.material, batch, settings.seed, accelerator.device)
        accelerator.backward(loss / settings.accumulate)
        total += loss.detach() / settings.accumulate
    _reduce_gradients(run.network, accelerator)
    accelerator.clip_grad_norm_(run.network.parameters(), 1.0)
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    loss, asked = accelerator.reduce(torch.stack([total, torch.full_like(total, float(run.asked))]), reduction="mean").tolist()
    return loss, asked > 0


def _reduce_gradients(network: Network, accelerator: Any) -> None:
    """One message with all gradients: the adapter is small, and its own forward never runs, so DDP would be of no use."""
    if accelerator.num_processes == 1:
        return
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in network.parameters()]
    mean = accelerator.reduce(torch.cat([g.reshape(-1) for g in gradients]), reduction="mean")
    for p, g in zip(network.parameters(), mean.split([g.numel() for g in gradients]), strict=True):
        p.grad = g.view_as(p).clone()


def _share(run: Run) -> Iterator[list[Slot]]:
    """This process's batches, from the step that the run is at: the processes take turns."""
    world, rank = run.accelerator.num_processes, run.accelerator.process_index
    every = batches(run.material.pictures, run.settings.batch_size, run.settings.seed)
    return islice(every, run.step * run.settings.accumulate * world + rank, None, world)


@contextmanager
def _stopping(run: Run) -> Generator[None, None, None]:
    """Ctrl-C ends the run after the step under way; a second one ends it at once."""

    def stop(*_: object) -> None:
        if run.asked:
            raise KeyboardInterrupt
        run.asked = True

    try:
        before = signal.signal(signal.SIGINT, stop)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
