"""The training itself: the student learns ``target + (source with the adapter − source)``."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorax.errors import Cancelled, FileError, LoraxError, MalformedFile
from lorax.train.distill.denoiser import Denoiser, Texts
from lorax.train.distill.points import Points, Tick, chunks
from lorax.train.distill.settings import DistillSettings
from lorax.train.distill.student import Student

WARMUP = 0.2
"""Share of the steps in which the learning rate rises, at most `MAX_WARMUP` of them; then it falls along a half cosine."""
MAX_WARMUP = 20
OnStep = Callable[[int, int, float], None]
"""(step, steps, loss): loss is the share of the effect that the batch still misses."""


@dataclass
class Learning:
    """A training under way."""

    denoiser: Denoiser
    """The target"""
    student: Student
    points: Points
    prompts: Sequence[str]
    texts: Texts
    """The target's own, with the text encoders' share of the start in them"""
    settings: DistillSettings
    rate: float
    optimizer: Any
    scaler: Any
    step: int = 0
    losses: list[float] = field(default_factory=list[float])


def begin(
    denoiser: Denoiser, student: Student, points: Points, prompts: Sequence[str], texts: Texts, settings: DistillSettings
) -> Learning:
    """At step 0."""
    rate = settings.learning_rate or student.largest_learning_rate()
    half = next(denoiser.parts.pipe.unet.parameters()).dtype == torch.float16
    return Learning(
        denoiser,
        student,
        points,
        prompts,
        texts,
        settings,
        rate,
        torch.optim.Adam(student.parameters(), lr=rate),
        _scaler(denoiser.device, half),
    )


def learn(run: Learning, tick: Tick, on_step: OnStep, save: Callable[[Learning], None], *, stop_where_not_finite: bool = True) -> None:
    """All steps that are left. tick raises `Cancelled` to stop: the state is saved then.

    LoraxError where the loss is no finite number; without `stop_where_not_finite` the steps just end there.
    """
    settings, unet = run.settings, run.denoiser.parts.pipe.unet
    scale = float(run.points.effect[run.points.where(held=False)].square().mean())
    order = batches(run.points, settings)
    if settings.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
        unet.train()  # or diffusers ignores it; these networks have no dropout
    with run.student.on():
        while run.step < settings.steps:
            try:
                tick()
            except Cancelled:
                save(run)
                raise
            for group in run.optimizer.param_groups:
                group["lr"] = learning_rate(run.rate, run.step, settings.steps)
            loss = _step(run, order[run.step], scale)
            if not math.isfinite(loss):
                if not stop_where_not_finite:
                    break
                raise LoraxError(f"the loss is {loss} at step {run.step + 1}: lower --learning-rate (it was {run.rate:.3g}).")
            run.step += 1
            run.losses.append(loss)
            on_step(run.step, settings.steps, loss)
            if run.step % settings.save_every == 0 and run.step < settings.steps:
                save(run)
    unet.eval()


def learning_rate(rate: float, step: int, steps: int) -> float:
    """Linear warm-up, then a half cosine to zero."""
    warm = max(1, min(MAX_WARMUP, round(WARMUP * steps)))
    if step < warm:
        return rate * (step + 1) / warm
    return rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def batches(points: Points, settings: DistillSettings) -> list[list[int]]:
    """The points of every step: each once a round, each round in an order of its own, the same for the same seed."""
    mine = points.where(held=False)
    generator = torch.Generator().manual_seed(settings.seed)
    needed, order = settings.steps * settings.batch_size, list[int]()
    while len(order) < needed:
        order += [mine[i] for i in torch.randperm(len(mine), generator=generator).tolist()]
    return chunks(order[:needed], settings.batch_size)


def student_change(run: Learning, chosen: Sequence[int], tick: Tick) -> Tensor:
    """What the student changes in the target's predictions, [n, c, h, w], on the CPU."""
    found: list[Tensor] = []
    with torch.no_grad(), run.student.on():
        for some in chunks(chosen, run.settings.batch_size):
            tick()
            found.append(_predict(run, some).cpu() - run.points.base[some])
    return torch.cat(found)


def save_learning(run: Learning, path: Path) -> None:
    """All that is needed to go on, whole or not at all."""
    new = path.with_name(f"{path.name}.new")
    scaler = run.scaler.state_dict() if run.scaler is not None else {}
    held = {
        "student": run.student.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scaler": scaler,
        "step": run.step,
        "rate": run.rate,
        "losses": run.losses,
    }
    try:
        torch.save(held, new)
        new.replace(path)
    except OSError as error:
        raise FileError(f"the state cannot be saved as '{path}': {error.strerror or error}.") from error


def load_learning(run: Learning, path: Path) -> None:
    """Go on from a saved state. MalformedFile where it is damaged."""
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
        run.student.load_state_dict(held["student"])
        run.optimizer.load_state_dict(held["optimizer"])
        if run.scaler is not None and held["scaler"]:
            run.scaler.load_state_dict(held["scaler"])
        run.rate = float(held["rate"])
        run.step, run.losses = int(held["step"]), [float(x) for x in held["losses"]]
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError):
        raise MalformedFile(f"'{path}' is damaged: start without --resume.") from None


def _step(run: Learning, chosen: list[int], scale: float) -> float:
    wanted = (run.points.base[chosen] + run.points.effect[chosen]).to(run.denoiser.device)
    loss = (_predict(run, chosen) - wanted).square().mean() / scale
    run.optimizer.zero_grad(set_to_none=True)
    if run.scaler is None:
        loss.backward()
        torch.nn.utils.clip_grad_norm_(run.student.parameters(), 1.0)
        run.optimizer.step()
    else:
        run.scaler.scale(loss).backward()
        run.scaler.unscale_(run.optimizer)
        torch.nn.utils.clip_grad_norm_(run.student.parameters(), 1.0)
        run.scaler.step(run.optimizer)
        run.scaler.update()
    return float(loss.detach())


def _predict(run: Learning, chosen: Sequence[int]) -> Tensor:
    texts = [run.texts[prompt] for prompt in run.points.prompts(chosen, run.prompts)]
    return run.denoiser.predict(run.points.noisy(chosen), run.points.times[chosen], texts)


def _scaler(device: torch.device, half: bool) -> Any:
    """Keeps small gradients from vanishing in fp16; None where nothing is in fp16."""
    if not half:
        return None
    if hasattr(torch.amp, "GradScaler"):  # torch ≥ 2.3
        return torch.amp.GradScaler(device.type)
    return torch.cuda.amp.GradScaler()  # pyright: ignore[reportDeprecated]
