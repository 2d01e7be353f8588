"""Pictures drawn while training, always from the same noise, so that only the adapter makes the difference."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lorax.train.packages import load_package
from lorax.train.parts import Encoded, Parts
from lorax.train.settings import TrainSettings

GRID = "grid.png"
_SAMPLE = re.compile(r"step-\d{6,}-\d+\.png")


def draw_samples(
    parts: Parts, texts: Mapping[str, Encoded], prompts: Sequence[str], size: tuple[int, int], settings: TrainSettings, device: torch.device
) -> list[Any]:
    """One picture for each prompt."""
    pipe, unet = parts.pipe, parts.pipe.unet
    training, dtype = unet.training, next(unet.parameters()).dtype
    unet.eval()
    pipe.vae.to(device)
    pictures: list[Any] = []
    with torch.no_grad():
        for prompt in prompts:
            positive, negative = texts[prompt], texts[""]
            said = {
                "prompt_embeds": positive.states[None].to(device, dtype),
                "negative_prompt_embeds": negative.states[None].to(device, dtype),
            }
            if positive.pooled is not None and negative.pooled is not None:
                said["pooled_prompt_embeds"] = positive.pooled[None].to(device, dtype)
                said["negative_pooled_prompt_embeds"] = negative.pooled[None].to(device, dtype)
            noise = torch.Generator().manual_seed(settings.seed)
            latents = pipe(
                **said,
                width=size[0],
                height=size[1],
                num_inference_steps=settings.sample_steps,
                guidance_scale=settings.sample_guidance,
                generator=noise,
                output_type="latent",
            ).images
            decoded = pipe.vae.decode(latents.float() / pipe.vae.config.scaling_factor).sample
            pictures += pipe.image_processor.postprocess(decoded, output_type="pil")
    pipe.vae.to("cpu")
    unet.train(training)
    return pictures


def write_samples(folder: Path, step: int, pictures: Sequence[Any]) -> None:
    """``step-000250-0.png`` and on."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, picture in enumerate(pictures):
        picture.save(folder / f"step-{step:06d}-{i}.png")


def remove_samples(folder: Path) -> None:
    """Take away what `write_samples` and `write_grid` left in a folder, and nothing else."""
    for path in folder.glob("*.png"):
        if _SAMPLE.fullmatch(path.name) or path.name == GRID:
            path.unlink()


def write_grid(folder: Path) -> Path | None:
    """All samples of a folder in one picture: a row for each prompt, training going on to the right."""
    rows: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("step-*-*.png")):
        rows.setdefault(path.stem.rsplit("-", 1)[1], []).append(path)
    if not rows:
        return None
    images = load_package("PIL.Image")
    opened = [[images.open(path).convert("RGB") for path in row] for row in rows.values()]
    width, height = opened[0][0].size
    grid = images.new("RGB", (width * max(map(len, opened)), height * len(opened)), "white")
    for y, row in enumerate(opened):
        for x, picture in enumerate(row):
            grid.paste(picture.resize((width, height)), (x * width, y * height))
    grid.save(folder / GRID)
    return folder / GRID
