"""One adapter on its source and in several ways on a target: the same prompts, the same noise, pictures and figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorax.actions import cached_bases, check_output
from lorax.adapter import Adapter
from lorax.checkpoint import Checkpoint, open_checkpoint
from lorax.device import resolve_device
from lorax.errors import FileError, NotTransferable
from lorax.formats import read_adapter
from lorax.train.compare.grid import draw_grid, write_picture
from lorax.train.compare.settings import CompareSettings
from lorax.train.compare.variants import Variant, make_variants
from lorax.train.distill import DistillSettings, effect_cosine, relative_strength
from lorax.train.distill.branches import attached
from lorax.train.distill.denoiser import Denoiser, Texts, loaded, resolve_precision
from lorax.train.distill.job import Ticker
from lorax.train.distill.points import Points, convert_change, draw_noise, make_points, predict_points
from lorax.train.distill.space import check_predictions, check_same_space, read_latent_space
from lorax.train.distill.start import source_deltas
from lorax.train.packages import require_packages
from lorax.transfer.checks import check_families, check_made_for
from lorax.transfer.types import Progress, no_progress

POINTS = 4
"""Noisy versions of each of the source's pictures that the effect is measured on"""


@dataclass(frozen=True)
class Compared:
    """One column's figures."""

    method: str
    words: str
    verdict: str
    """By the weights"""
    modules: int
    cosine: float | None
    """Effect cosine on the source's own pictures; None where there is nothing to measure"""
    strength: float | None
    """How strong the effect is beside the source's"""


@dataclass(frozen=True)
class Comparison:
    """What came of it."""

    adapter_name: str
    source_name: str
    target_name: str
    output: str
    rows: int
    columns: tuple[Compared, ...]
    notes: tuple[str, ...]


def compare_pictures(
    adapter: str | Path,
    source: str | Path,
    target: str | Path,
    output: Path,
    settings: CompareSettings,
    progress: Progress = no_progress,
    cancelled: Callable[[], bool] = lambda: False,
) -> Comparison:
    """Draw the grid and measure each column; one model is in memory at a time. A method that cannot be made is a line, not an end.

    source, target: whole checkpoint files or diffusers folders. Raises Cancelled where it was stopped; NotTransferable for other
    families, LoraxError and its kin for the files; MissingPackage without the extra ``[train]``.
    """
    require_packages()
    with ExitStack() as stack:
        bases = stack.enter_context(open_checkpoint(source)), stack.enter_context(open_checkpoint(target))
        read = read_adapter(adapter, bases[0].arch)
        distilled = output.with_name(f"{output.stem}-distilled.safetensors")
        _check(read, bases, output, distilled, settings)
        notes, comparable = _comparable(bases, settings)
        ticker = Ticker(progress, cancelled)
        variants = make_variants(read, *bases, settings, distilled, progress)
        device = resolve_device(settings.device)
        precision = resolve_precision(settings.precision, device)
        drawn = _Drawn([], [], settings)
        with loaded(bases[0], settings.source_config, device, precision) as model:
            points = _on_source(drawn, model, read, bases[0], ticker)
        with loaded(bases[1], settings.target_config, device, precision) as model:
            columns = _on_target(drawn, model, variants, points if comparable else None, ticker)
    title = f"{read.name}: from {bases[0].name} to {bases[1].name}"
    rows = [(f"{prompt} (seed {seed})", row) for (prompt, seed), row in zip(settings.rows, zip(*drawn.pictures, strict=True), strict=True)]
    write_picture(output, draw_grid(title, drawn.heads, rows), settings.overwrite)
    return Comparison(read.name, bases[0].name, bases[1].name, str(output), len(rows), tuple(columns), tuple(notes))


@dataclass
class _Drawn:
    """The grid's columns so far."""

    heads: list[tuple[str, str]]
    pictures: list[list[Any]]
    settings: CompareSettings
    size: int = 0
    """Of the latents, chosen by the source, for both the same"""

    def add(self, name: str, figure: str, model: Denoiser, texts: Texts, ticker: Ticker) -> Tensor:
        """Draw a column with what is on the model now; gives its latents."""
        s = self.settings
        channels = int(model.parts.pipe.unet.config.in_channels)
        tick = ticker.phase(f"drawing {name}", s.steps * -(-len(s.rows) // s.batch_size))
        found: list[Tensor] = []
        with torch.no_grad():
            for start in range(0, len(s.rows), s.batch_size):
                some = s.rows[start : start + s.batch_size]
                noise = torch.stack([draw_noise(seed, (channels, self.size, self.size)) for _, seed in some])
                said = [texts[prompt] for prompt, _ in some]
                found.append(model.sample(said, texts[""], noise, s.steps, s.guidance, tick))
            latents = torch.cat(found)
            self.pictures.append(model.decode(latents))
        self.heads.append((name, figure))
        return latents


def _on_source(drawn: _Drawn, model: Denoiser, adapter: Adapter, base: Checkpoint, ticker: Ticker) -> Points:
    """Two columns, and what the adapter changes on the pictures of the first."""
    s = drawn.settings
    drawn.size = model.latent_size if s.resolution is None else max(8, s.resolution // model.scale // 8 * 8)
    texts = model.encode(s.prompts)
    own = drawn.add("source", "without the adapter", model, texts, ticker)
    told = DistillSettings(samples=len(own), points=POINTS, seed=s.seed)
    prompts = [prompt for prompt, _ in s.rows]
    points = make_points([own], prompts, model.signal.cpu(), told)
    everything, tick = range(len(points)), ticker.phase("measuring the adapter's effect", 2 * -(-len(points) // s.batch_size))
    plain = predict_points(model, points, everything, prompts, texts, s.batch_size, tick)
    strangers = check_made_for(adapter, list(adapter.modules), base)
    deltas = source_deltas(adapter, [i for i in adapter.modules if i not in strangers], base, cached_bases(), s.device)
    with attached(model.layers, deltas, adapter.offsets):
        texts = model.encode(s.prompts)
        drawn.add("source with it", "what it should do", model, texts, ticker)
        change = predict_points(model, points, everything, prompts, texts, s.batch_size, tick) - plain
    if model.parts.velocity:
        change = convert_change(change, True, False, points.signal[points.times])
    return replace(points, effect=change)


def _on_target(drawn: _Drawn, model: Denoiser, variants: Sequence[Variant], points: Points | None, ticker: Ticker) -> list[Compared]:
    """A column for each variant that could be made. points: None where the two bases' predictions cannot be compared."""
    s, plain = drawn.settings, None
    prompts = [prompt for prompt, _ in s.rows]
    columns: list[Compared] = []
    for variant in variants:
        cosine = strength = None
        if variant.deltas is None:
            columns.append(Compared(variant.method, variant.words, variant.verdict, 0, None, None))
            continue
        if points is not None and variant.deltas:
            tick = ticker.phase(f"measuring {variant.method}", 2 * -(-len(points) // s.batch_size))
            if plain is None:
                plain = predict_points(model, points, range(len(points)), prompts, model.encode(s.prompts), s.batch_size, tick)
            with attached(model.layers, variant.deltas):
                changed = predict_points(model, points, range(len(points)), prompts, model.encode(s.prompts), s.batch_size, tick)
            change = convert_change(changed - plain, model.parts.velocity, False, points.signal[points.times])
            cosine, strength = effect_cosine(points.effect, change), relative_strength(points.effect, change)
        figure = "the target" if not variant.deltas else "" if cosine is None else f"effect cosine {cosine:.2f}"
        with attached(model.layers, variant.deltas):
            drawn.add(variant.method, figure, model, model.encode(s.prompts), ticker)
        columns.append(Compared(variant.method, variant.words, variant.verdict, len(variant.deltas), cosine, strength))
    return columns


def _check(adapter: Adapter, bases: tuple[Checkpoint, Checkpoint], output: Path, distilled: Path, settings: CompareSettings) -> None:
    """Before any work."""
    if output.suffix.lower() != ".png":
        raise FileError(f"'{output}' has to end in .png")
    inputs = [path for base in bases for path in base.paths] + ([adapter.path] if adapter.path else [])
    check_output(output, inputs, settings.overwrite)
    if "distill" in settings.methods and settings.distilled is None:
        check_output(distilled, inputs, settings.overwrite)
    check_families(adapter, *bases)


def _comparable(bases: tuple[Checkpoint, Checkpoint], settings: CompareSettings) -> tuple[list[str], bool]:
    """Notes, and whether predictions of the two at the same latents mean the same."""
    spaces = read_latent_space(bases[0], settings.source_config), read_latent_space(bases[1], settings.target_config)
    try:
        return [*check_predictions(*bases), *check_same_space(*spaces)], True
    except NotTransferable as error:
        return [f"no effect cosine: {error}"], False
