"""A whole run of the standalone trainer, from its settings to its files."""

from __future__ import annotations

from typing import Any

import torch

from lorax.archs import kohya_names
from lorax.bases import Bases, default_bases
from lorax.checkpoint import Checkpoint, open_checkpoint
from lorax.device import resolve_device
from lorax.errors import Cancelled, LoraxError, WouldOverwrite, one_line
from lorax.train import finish
from lorax.train.base_weights import FileWeights
from lorax.train.data import find_pictures
from lorax.train.loop import Run, train
from lorax.train.network import Network
from lorax.train.packages import load_package, require_packages
from lorax.train.parts import Parts, encode_captions, encode_pictures, load_parts, pixels_of_latent
from lorax.train.samples import draw_samples, remove_samples, write_grid, write_samples
from lorax.train.settings import TrainSettings
from lorax.train.state import load_state, save_state
from lorax.train.step import Material
from lorax.train.targets import chosen_layers, live_layers

WEIGHTS = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def run_training(settings: TrainSettings) -> Run:
    """Train, and write what was asked for. Cancelled where the user stopped it, after everything was saved."""
    require_packages()
    _check_outputs(settings)
    factor = pixels_of_latent(settings.base, settings.config)
    pictures = find_pictures(settings.pictures, settings.resolution, settings.caption, factor)
    with open_checkpoint(settings.base) as base:
        accelerator = _accelerator(settings)
        parts = load_parts(base, settings.config, WEIGHTS[settings.precision])
        bases = default_bases()
        network = _network(settings, parts, base, bases, accelerator)
        prompts = settings.sample_prompts or (pictures[0].caption,)
        texts = encode_captions(parts, {p.caption for p in pictures} | set(prompts) | {""}, accelerator.device)
        with _bar(len(pictures), "encoding the pictures", accelerator) as bar:
            moments = encode_pictures(parts, pictures, accelerator.device, bar.update)
        optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=0.0)
        run = Run(settings, parts, network, Material(pictures, moments, texts), accelerator, accelerator.prepare(optimizer))
        if settings.resume:
            run.step, run.losses = load_state(settings.state_folder, network, run.optimizer, settings.bound(), accelerator.scaler)
        _go(run, base, bases, list(prompts))
    return run


def _go(run: Run, base: Checkpoint, bases: Bases, prompts: list[str]) -> None:
    settings = run.settings
    if run.step == 0:
        if run.first and settings.overwrite:
            remove_samples(settings.sample_folder)
        _samples(run, prompts)
    with _bar(settings.steps, "training", run.accelerator, run.step) as bar:

        def after_step(run: Run) -> None:
            recent = run.losses[-100:]
            bar.set_postfix(loss=f"{sum(recent) / len(recent):.4f}", refresh=False)
            bar.update(1)
            if run.step % settings.save_every == 0 and run.step < settings.steps and run.first:
                path = settings.output.with_name(f"{settings.output.stem}-{run.step:06d}.safetensors")
                finish.write_trained(run, base, path, overwrite=True)
                _save_state(run)
            if settings.sample_every and run.step % settings.sample_every == 0:
                _samples(run, prompts)

        train(run, after_step)
    if run.first:
        _save_state(run)
        finish.write_trained(run, base, settings.output, overwrite=settings.overwrite or settings.resume)
        write_grid(settings.sample_folder)
        if settings.export and not run.stopped:
            finish.write_export(settings, base, bases, settings.export)
    run.accelerator.wait_for_everyone()
    if run.stopped:
        raise Cancelled(
            f"stopped at step {run.step} of {settings.steps}; '{settings.output.name}' holds what was learned, --resume goes on from there"
        )


def _network(settings: TrainSettings, parts: Parts, base: Checkpoint, bases: Bases, accelerator: Any) -> Network:
    """On the UNet; its bases are of the file's own weights, whatever precision the UNet was loaded in."""
    options = settings.network
    unet = parts.pipe.unet.to(accelerator.device)
    if settings.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
        unet.train()
    layers = chosen_layers(parts.arch, live_layers(parts.arch, unet, []), options.target, options.exclude)
    network = Network(layers, settings.k, full=options.full, form=options.form, arch=parts.arch, self_contained=options.self_contained)
    network.base = finish.base_hint(base)
    names = kohya_names(parts.arch)
    with accelerator.main_process_first(), FileWeights(base.paths[0]) as file:
        network.put_on(bases, lambda name, layer: file.weight(names[name], layer), options.device)
    return network


def _accelerator(settings: TrainSettings) -> Any:
    accelerate = load_package("accelerate")
    if settings.device != "auto":
        resolve_device(settings.device)
    accelerator = accelerate.Accelerator(mixed_precision=settings.precision, cpu=settings.device == "cpu")
    if settings.device not in ("auto", accelerator.device.type):
        raise LoraxError(f"accelerate takes '{accelerator.device.type}' here, not '{settings.device}': leave --device to auto, or use cpu.")
    if settings.precision == "fp16" and accelerator.device.type == "cpu":
        raise LoraxError("fp16 training needs a GPU: use --precision bf16 or no.")
    return accelerator


def _samples(run: Run, prompts: list[str]) -> None:
    if not run.settings.sample_every or not run.first:
        return
    size = run.material.pictures[0].size
    drawn = draw_samples(run.parts, run.material.captions, prompts, size, run.settings, run.accelerator.device)
    write_samples(run.settings.sample_folder, run.step, drawn)


def _save_state(run: Run) -> None:
    settings = run.settings
    save_state(settings.state_folder, run.network, run.optimizer, run.step, settings.bound(), run.losses, run.accelerator.scaler)


def _check_outputs(settings: TrainSettings) -> None:
    """Before hours of work, not after."""
    for path in (settings.output, settings.export):
        if path is None:
            continue
        if path.suffix != ".safetensors":
            raise LoraxError(one_line(f"'{path}' should end in .safetensors."))
        if path.exists() and not (settings.overwrite or settings.resume):
            raise WouldOverwrite(one_line(f"'{path}' exists: choose another name, or give --force."))
        if path.resolve() == settings.base.resolve():
            raise WouldOverwrite(one_line(f"'{path}' is the base itself: choose another name."))
        if not path.parent.exists():
            path.parent.mkdir(parents=True)
    if settings.export and settings.export.resolve() == settings.output.resolve():
        raise WouldOverwrite(one_line(f"'{settings.export}' is the output itself: choose another name for the standard LoRA."))


def _bar(total: int, text: str, accelerator: Any, initial: int = 0) -> Any:
    return load_package("tqdm").tqdm(total=total, initial=initial, desc=text, disable=None if accelerator.is_main_process else True)
