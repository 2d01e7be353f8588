"""What all models of a run share: the VAE, the text encoders, the noise schedule; and pictures as latents."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.quality.captions import EMPTY, Texts, encode, make_encoders, make_tokenizer
from benchmarks.quality.layouts import SCHEDULE
from benchmarks.quality.pictures import draw
from benchmarks.quality.vae import CHANNELS, LATENT, encode_pixels, train_vae

STEPS = 1000
"""Of the noise schedule."""
DROPPED = 0.1
"""Share of captions left out in training, for classifier-free guidance."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Noisy latents and what is asked of a model."""

    noisy: Tensor
    """[n, 4, 8, 8]"""
    times: Tensor
    """[n]"""
    caption: Tensor
    """[n]"""
    velocity: Tensor
    """[n, 4, 8, 8]: √ᾱ ε − √(1−ᾱ) x (Salimans & Ho 2022)"""


@dataclass(frozen=True, eq=False)
class Material:
    """Pictures of one domain and style as latents."""

    latents: Tensor
    caption: Tensor


class Stage:
    """Made once in a folder, read from there afterwards."""

    def __init__(self, folder: Path, vae_steps: int, progress: Any) -> None:
        from diffusers import AutoencoderKL

        home = folder / "vae"
        if not (home / "config.json").exists():
            train_vae(vae_steps, progress).save_pretrained(str(home))
        self.vae = AutoencoderKL.from_pretrained(str(home)).eval().requires_grad_(False)
        self.tokenizer = make_tokenizer(folder / "tokenizer")
        self._texts: dict[bool, tuple[list[Any], Texts]] = {}
        betas = torch.linspace(SCHEDULE["beta_start"] ** 0.5, SCHEDULE["beta_end"] ** 0.5, STEPS, dtype=torch.float64) ** 2
        alphas = (1 - betas).cumprod(0)
        self.signal, self.noise = alphas.sqrt().float(), (1 - alphas).sqrt().float()

    def encoders(self, xl: bool) -> list[Any]:
        return self._text(xl)[0]

    def texts(self, xl: bool) -> Texts:
        return self._text(xl)[1]

    def _text(self, xl: bool) -> tuple[list[Any], Texts]:
        if xl not in self._texts:
            encoders = make_encoders(len(self.tokenizer), xl)
            self._texts[xl] = encoders, encode(self.tokenizer, encoders)
        return self._texts[xl]

    def material(self, count: int, seed: int, domain: str = "light", style: str = "plain") -> Material:
        pictures = draw(count, seed, domain, style)
        return Material(encode_pixels(self.vae, pictures.pixels), pictures.caption)

    def noised(self, latents: Tensor, noise: Tensor, times: Tensor, caption: Tensor) -> Batch:
        signal, share = self.signal[times][:, None, None, None], self.noise[times][:, None, None, None]
        return Batch(signal * latents + share * noise, times, caption, signal * noise - share * latents)

    def random_batch(self, material: Material, size: int, generator: torch.Generator) -> Batch:
        chosen = torch.randint(0, len(material.latents), (size,), generator=generator)
        latents = material.latents[chosen]
        noise = torch.randn(latents.shape, generator=generator)
        times = torch.randint(0, STEPS, (size,), generator=generator)
        dropped = torch.rand(size, generator=generator) < DROPPED
        return self.noised(latents, noise, times, material.caption[chosen].masked_fill(dropped, EMPTY))

    def predict(self, unet: Any, batch: Batch, xl: bool) -> Tensor:
        return self.run(unet, batch.noisy, batch.times, batch.caption, xl)

    def run(self, unet: Any, noisy: Tensor, times: Tensor, caption: Tensor, xl: bool) -> Tensor:
        states, pooled = self.texts(xl).take(caption)
        added = None
        if pooled is not None:
            side = LATENT * 2
            sizes = torch.tensor([side, side, 0, 0, side, side], dtype=torch.float32).expand(len(noisy), 6)
            added = {"text_embeds": pooled, "time_ids": sizes}
        return unet(noisy, times, states, added_cond_kwargs=added, return_dict=False)[0]

    @torch.no_grad()
    def held_out_loss(self, unet: Any, material: Material, xl: bool, seed: int = 7) -> float:
        """Mean squared error of the velocity at fixed noise, times spread evenly."""
        generator = torch.Generator().manual_seed(seed)
        count, total = len(material.latents), 0.0
        times = (((torch.arange(count) + 0.5) / count) * STEPS).long()[torch.randperm(count, generator=generator)]
        noise = torch.randn(material.latents.shape, generator=generator)
        for part in torch.arange(count).split(128):
            batch = self.noised(material.latents[part], noise[part], times[part], material.caption[part])
            total += float(functional.mse_loss(self.predict(unet, batch, xl), batch.velocity, reduction="sum"))
        return total / (count * CHANNELS * LATENT * LATENT)

    @torch.no_grad()
    def sample(self, unet: Any, caption: Tensor, xl: bool, seed: int, steps: int = 15, guidance: float = 2.0) -> Tensor:
        """Latents by DDIM from one noise for each seed, [n, 4, 8, 8]."""
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(len(caption), CHANNELS, LATENT, LATENT, generator=generator)
        grid = torch.linspace(STEPS - 1, 0, steps + 1).long()
        both = torch.cat([caption, torch.full_like(caption, EMPTY)])
        for now, then in itertools.pairwise(grid):
            times = now.expand(2 * len(caption))
            wanted, empty = self.run(unet, torch.cat([x, x]), times, both, xl).chunk(2)
            velocity = empty + guidance * (wanted - empty)
            clean = self.signal[now] * x - self.noise[now] * velocity
            noise = self.noise[now] * x + self.signal[now] * velocity
            x = self.signal[then] * clean + self.noise[then] * noise
        return clean


def rate_at(step: int, steps: int, peak: float, warm: int) -> float:
    """Linear warm-up, then half a cosine to zero."""
    return peak * min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * step / steps))
