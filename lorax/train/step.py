"""One step of diffusion training: noise a picture's latents, ask the UNet for the noise, compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lorax.train.data import Picture, Slot
from lorax.train.packages import load_package
from lorax.train.parts import Encoded, Moments, Parts


@dataclass(frozen=True, eq=False)
class Material:
    """Everything that is learned from, encoded once."""

    pictures: Sequence[Picture]
    moments: Sequence[Moments]
    captions: Mapping[str, Encoded]


@dataclass(frozen=True, eq=False)
class Drawn:
    """What chance decides for one place of a batch."""

    latents: Tensor
    noise: Tensor
    timestep: int


def make_noise_schedule(parts: Parts) -> Any:
    """The training schedule of the base."""
    said = dict(parts.pipe.scheduler.config)
    keep = {k: said[k] for k in ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas") if k in said}
    schedule = load_package("diffusers").DDPMScheduler(**keep, prediction_type="v_prediction" if parts.velocity else "epsilon")
    if said.get("rescale_betas_zero_snr"):
        schedule = load_package("diffusers").DDPMScheduler.from_config(schedule.config, rescale_betas_zero_snr=True)
    return schedule


def draw(material: Material, slot: Slot, seed: int, steps: int, scale: float) -> Drawn:
    """Latents, noise and timestep of a place: from its own number alone, on every machine the same."""
    generator = torch.Generator().manual_seed((seed << 32) + slot.draw)
    mean, std = material.moments[slot.picture]
    latents = (mean + std * torch.randn(mean.shape, generator=generator)) * scale
    noise = torch.randn(mean.shape, generator=generator)
    return Drawn(latents, noise, int(torch.randint(0, steps, (1,), generator=generator)))


def compute_loss(parts: Parts, schedule: Any, material: Material, batch: Sequence[Slot], seed: int, device: torch.device) -> Tensor:
    """Mean squared error of the prediction over the batch."""
    scale = float(parts.pipe.vae.config.scaling_factor)
    drawn = [draw(material, slot, seed, int(schedule.config.num_train_timesteps), scale) for slot in batch]
    latents, noise = (torch.stack([getattr(d, name) for d in drawn]).to(device) for name in ("latents", "noise"))
    times = torch.tensor([d.timestep for d in drawn], device=device)
    noisy = schedule.add_noise(latents, noise, times)
    target = schedule.get_velocity(latents, noise, times) if parts.velocity else noise
    texts = [material.captions[material.pictures[slot.picture].caption] for slot in batch]
    sizes = [material.pictures[slot.picture].size for slot in batch]
    predicted = predict(parts, noisy, times, texts, sizes)
    return functional.mse_loss(predicted, target.float())


def predict(parts: Parts, noisy: Tensor, times: Tensor, texts: Sequence[Encoded], sizes: Sequence[tuple[int, int]]) -> Tensor:
    """The UNet's answer in fp32, [n, 4, h, w]; noisy: likewise, times: [n], one text and one size in pixels (width, height) each."""
    unet = parts.pipe.unet
    dtype, device = next(unet.parameters()).dtype, noisy.device
    states = torch.stack([t.states for t in texts]).to(device, dtype)
    added: dict[str, Tensor] | None = None
    if parts.xl:
        pooled = torch.stack([t.pooled for t in texts if t.pooled is not None])
        added = {
            "text_embeds": pooled.to(device, dtype),
            "time_ids": torch.tensor([[h, w, 0, 0, h, w] for w, h in sizes], device=device, dtype=dtype),
        }
    return unet(noisy.to(dtype), times, states, added_cond_kwargs=added, return_dict=False)[0].float()
