"""Data-free distillation from its inputs to its file, one model in memory at a time."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lorax.actions import cached_bases
from lorax.errors import Cancelled, LoraxError
from lorax.layers import LayerId
from lorax.linalg import Factors
from lorax.train.distill.branches import attached
from lorax.train.distill.denoiser import Denoiser, Texts, loaded
from lorax.train.distill.finish import write_distilled
from lorax.train.distill.job import Job, Ticker, check_paths, open_job
from lorax.train.distill.learn import Learning, OnStep, begin, learn, load_learning, save_learning, student_change
from lorax.train.distill.measure import effect_cosine, missed_share
from lorax.train.distill.own_samples import own_samples
from lorax.train.distill.points import Points, draw_samples, make_points, predict_points, with_effect
from lorax.train.distill.rate import TRIED, find_rate, trial_steps
from lorax.train.distill.report import DistillReport
from lorax.train.distill.settings import DistillSettings, state_folder
from lorax.train.distill.start import Start, compute_start, source_deltas, trained_layers
from lorax.train.distill.student import Student
from lorax.train.packages import require_packages
from lorax.transfer.types import Progress, no_progress

_POINTS, _LEARNING = "points.state", "training.state"
"""Of no suffix that an adapter may have: the folder may lie among those of a WebUI."""


def distill(
    adapter: str | Path,
    source: str | Path,
    target: str | Path,
    output: Path,
    settings: DistillSettings | None = None,
    progress: Progress = no_progress,
    on_step: OnStep | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> DistillReport:
    """Train a LoRA on the target that shows there what the adapter does to the source, on both models' own samples.

    source, target: whole checkpoint files or diffusers folders of one family with one latent space. on_step: (step, steps, loss)
    after each training step. cancelled: asked before every forward pass. Blocking; it changes no state outside its own objects.

    Raises Cancelled where it was stopped: before training nothing is left, in training its state is (`settings.resume` goes on,
    with the result of a run that was not stopped). NotTransferable for other latent spaces; MissingPackage without ``[train]``.
    """
    require_packages()
    start = time.perf_counter()
    settings = settings or DistillSettings()
    with open_job(adapter, source, target, settings) as job:
        check_paths(job, output)
        ticker = Ticker(progress, cancelled)
        begun = compute_start(job.adapter, job.source, job.target, settings, cached_bases(), progress)
        points = _resumed(job, output) if settings.resume else gather(job, ticker)
        report = _train(job, output, points, begun, ticker, on_step or (lambda step, steps, loss: None))
    forget_state(output)
    return replace(report, seconds=time.perf_counter() - start)


def gather(job: Job, ticker: Ticker) -> Points:
    """Samples of the target, of the source and of the source with the adapter, and the adapter's effect on all of them."""
    s, passes = job.settings, job.settings.sampling_steps * -(-job.settings.samples // job.settings.batch_size)
    with loaded(job.target, s.target_config, job.device, job.precision) as model:
        size = model.latent_size if s.resolution is None else max(8, s.resolution // model.scale // 8 * 8)
        signal, velocity = model.signal.cpu(), model.parts.velocity
        texts = model.encode(job.prompts)
        tick = ticker.phase("sampling from the target", passes)
        of_target = own_samples(job.target, s.target_config, model, texts, job.prompts, s, size, tick)
    with loaded(job.source, s.source_config, job.device, job.precision) as model:
        texts = model.encode(job.prompts)
        tick = ticker.phase("sampling from the source", passes)
        of_source = own_samples(job.source, s.source_config, model, texts, job.prompts, s, size, tick)
        with adapted(job, model) as adapted_texts:
            tick = ticker.phase("sampling from the source with the adapter", passes)
            of_adapted = draw_samples(model, adapted_texts, job.prompts, s, size, tick)
        points = make_points((of_source, of_adapted, of_target), job.prompts, signal, s)
        return _measured(job, model, points, texts, velocity, ticker)


@contextlib.contextmanager
def adapted(job: Job, model: Denoiser) -> Generator[Texts]:
    """The source with the adapter on its UNet; yields the prompts as its text encoders, with the adapter too, make them."""
    deltas = source_deltas(job.adapter, job.wanted, job.source, cached_bases(), job.settings.device)
    with attached(model.layers, deltas, job.adapter.offsets):
        yield model.encode(job.prompts)


def _measured(job: Job, model: Denoiser, points: Points, texts: Texts, wanted: bool, ticker: Ticker) -> Points:
    everything, size = range(len(points)), job.settings.batch_size
    tick = ticker.phase("measuring the adapter's effect", 2 * -(-len(points) // size))
    plain = predict_points(model, points, everything, job.prompts, texts, size, tick)
    with adapted(job, model) as adapted_texts:
        change = predict_points(model, points, everything, job.prompts, adapted_texts, size, tick) - plain
    if not bool(torch.isfinite(change).all()):
        raise LoraxError("the source's predictions are not finite with this adapter: use --precision bf16 or no")
    if not bool(change.any()):
        raise LoraxError(f"'{job.adapter.name}' changes nothing in the predictions of '{job.source.name}': there is nothing to learn")
    return with_effect(points, change, model.parts.velocity, wanted)


@dataclass(frozen=True)
class Shown:
    """How much of the effect the target shows, on samples that are not learned from."""

    missed: float
    cosine: float


@dataclass(frozen=True, eq=False)
class Beginning:
    """What training starts from."""

    text: Mapping[LayerId, Factors]
    """Deltas of the text encoders, carried as they are"""
    unet: Mapping[LayerId, Factors]
    words: str


def _train(job: Job, output: Path, points: Points, start: Start, ticker: Ticker, on_step: OnStep) -> DistillReport:
    settings, folder = job.settings, state_folder(output)
    with loaded(job.target, settings.target_config, job.device, job.precision) as model:
        plain = model.encode(job.prompts)
        if not len(points.base):
            tick = ticker.phase("asking the target", -(-len(points) // settings.batch_size))
            base = predict_points(model, points, range(len(points)), job.prompts, plain, settings.batch_size, tick)
            points = replace(points, base=base)
            forget_state(output)  # of a run that this one does not go on from
            folder.mkdir(exist_ok=True)
            points.save(folder / _POINTS, {"bound": json.dumps(job.bound(), sort_keys=True)})
        chosen = trained_layers(job.adapter, job.wanted, start, job.target, settings)
        run, beginning, before = _best_beginning(job, model, points, start, chosen, plain, ticker)
        untrained = {name: value.clone() for name, value in run.student.state_dict().items()}
        run = _learned(run, folder / _LEARNING, ticker, on_step)
        after = _shown(run, ticker)
        if after.missed >= before.missed:
            run.student.load_state_dict(untrained)
        deltas = {**run.student.factors(), **beginning.text}
    notes = list(job.notes)
    after = _kept(beginning, before, after, settings.steps, notes)
    told = {
        "steps": str(settings.steps),
        "seed": str(settings.seed),
        "learning_rate": f"{run.rate:.3g}",
        "start": beginning.words,
        "missed": f"{after.missed:.4f}",
        "effect_cosine": f"{after.cosine:.4f}",
    }
    written = write_distilled(output, job.adapter, job.source, job.target, deltas, settings, told, ticker.progress)
    return DistillReport(
        adapter_name=job.adapter.name,
        source_name=job.source.name,
        target_name=job.target.name,
        output=str(output),
        steps=settings.steps,
        seed=settings.seed,
        rank=job.rank,
        modules=written,
        learning_rate=run.rate,
        start=beginning.words,
        missed_start=before.missed,
        missed=after.missed,
        cosine_start=before.cosine,
        cosine=after.cosine,
        losses=tuple(run.losses),
        seconds=0.0,
        notes=tuple(notes),
    )


def _learned(run: Learning, state: Path, ticker: Ticker, on_step: OnStep) -> Learning:
    """After all steps. Cancelled says how to go on."""
    steps = run.settings.steps
    try:
        if state.is_file():
            load_learning(run, state)
        elif run.settings.learning_rate is None:
            tick = ticker.phase("trying learning rates", len(TRIED) * trial_steps(steps))
            run = find_rate(run, tick)
        learn(run, ticker.phase("training", steps), on_step, lambda run: save_learning(run, state))
    except Cancelled:
        raise Cancelled(f"stopped at training step {run.step} of {steps}; --resume goes on from there") from None
    return run


def _kept(beginning: Beginning, before: Shown, after: Shown, steps: int, notes: list[str]) -> Shown:
    """What is written is never worse than the start. LoraxError where that would be nothing."""
    if after.missed < before.missed:
        return after
    said = (
        f"{steps} training steps did not improve on the start ({before.missed:.1%} of the effect missed before, {after.missed:.1%} after)"
    )
    if not beginning.unet:
        raise LoraxError(f"{said}, and nothing was written: try more --steps, more --samples, or --prompts that fit the adapter")
    notes.append(f"{said}, so the start is what was written")
    return before


def _best_beginning(
    job: Job, model: Denoiser, points: Points, start: Start, chosen: list[LayerId], plain: Texts, ticker: Ticker
) -> tuple[Learning, Beginning, Shown]:
    """Nothing, the text encoders' share of the weights-only transfer, or all of it: whichever misses least."""
    why = f": {start.reason}" if start.reason else ""
    candidates = [Beginning({}, {}, f"nothing{why}" if not start.deltas else "nothing: the weights-only transfer measured no better")]
    if start.text:
        candidates.append(Beginning(start.text, {}, "the text encoders' part of the weights-only transfer; the rest measured no better"))
    if start.unet:
        candidates.append(Beginning(start.text, start.unet, f"the weights-only transfer, {start.method}{why}"))
    best: tuple[Learning, Beginning, Shown] | None = None
    for candidate in candidates:
        with attached(model.layers, candidate.text):
            texts = model.encode(job.prompts) if candidate.text else plain
        student = Student(model.layers, chosen, job.rank, candidate.unet, job.settings.seed)
        run = begin(model, student, points, job.prompts, texts, job.settings)
        shown = _shown(run, ticker)
        if best is None or shown.missed < best[2].missed:
            best = run, candidate, shown
    assert best is not None
    return best


def _shown(run: Learning, ticker: Ticker) -> Shown:
    held = run.points.where(held=True)
    change = student_change(run, held, ticker.phase("measuring what the target shows", -(-len(held) // run.settings.batch_size)))
    effect, own = run.points.effect[held], run.points.origin[held] == 0
    return Shown(missed_share(effect, change), effect_cosine(effect[own], change[own]))


def _resumed(job: Job, output: Path) -> Points:
    """The points of the run that was stopped. LoraxError where there is none, or it was another one."""
    path = state_folder(output) / _POINTS
    if not path.is_file():
        raise LoraxError(f"there is nothing to resume: '{path.parent}' has no {path.name}; start without --resume.")
    points, said = Points.load(path)
    before, now = json.loads(said.get("bound", "{}")), job.bound()
    changed = next((name for name in now if before.get(name) != now[name]), None)
    if changed is not None:
        raise LoraxError(
            f"the run to resume had {changed} = {before.get(changed)}, now it is {now[changed]}: give the same, or start without --resume."
        )
    return points


def can_resume(adapter: str | Path, source: str | Path, target: str | Path, output: Path, settings: DistillSettings) -> bool:
    """Whether a run that was stopped in training left a state that one with these settings can go on from."""
    if not state_folder(output).is_dir():
        return False
    with open_job(adapter, source, target, settings) as job, contextlib.suppress(LoraxError):
        _resumed(job, output)
        return True
    return False


def forget_state(output: Path) -> None:
    """Remove what a finished run needs no more; only what we wrote."""
    folder = state_folder(output)
    for name in (_POINTS, _LEARNING, f"{_LEARNING}.new"):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
