"""A base model as distillation uses it: prompts in, predictions and samples out."""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lorax.checkpoint import Checkpoint
from lorax.layers import LayerId
from lorax.train.packages import load_package
from lorax.train.parts import Encoded, Parts, encode_captions, load_parts, networks
from lorax.train.step import make_noise_schedule, predict
from lorax.train.targets import live_arch, live_layers

Texts = Mapping[str, Encoded]
"""Prompt → what the text encoders make of it"""
WEIGHTS = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, eq=False)
class Denoiser:
    """A loaded base, its UNet on `device`; latents and predictions are fp32, [n, channels, h, w]."""

    parts: Parts
    device: torch.device
    layers: Mapping[LayerId, nn.Module] = field(repr=False)
    """Live layers of the UNet and the text encoders"""
    schedule: Any = field(repr=False)

    @property
    def signal(self) -> Tensor:
        """ᾱ of each timestep, [T]"""
        return self.schedule.alphas_cumprod

    @property
    def scale(self) -> int:
        """Pixels along one side of a latent"""
        return int(self.parts.pipe.vae_scale_factor)

    @property
    def latent_size(self) -> int:
        """Side of the square that the model was made for, in latents"""
        size = self.parts.pipe.unet.config.sample_size
        return int(size if isinstance(size, int) else size[0])

    def encode(self, prompts: Sequence[str]) -> Texts:
        """The empty prompt is always among them."""
        return encode_captions(self.parts, {*prompts, ""}, self.device)

    def predict(self, noisy: Tensor, times: Tensor, texts: Sequence[Encoded]) -> Tensor:
        """Noise or v, whichever the base predicts."""
        size = noisy.shape[-1] * self.scale, noisy.shape[-2] * self.scale
        return predict(self.parts, noisy.to(self.device), times.to(self.device), texts, [size] * len(noisy))

    def sample(
        self, texts: Sequence[Encoded], empty: Encoded, noise: Tensor, steps: int, guidance: float, tick: Callable[[], None]
    ) -> Tensor:
        """Latents drawn by DDIM from `noise`, on the CPU. tick: called before every step; it may raise."""
        sampler = self._sampler()
        sampler.set_timesteps(steps)
        latents, n = noise.to(self.device), len(noise)
        for t in sampler.timesteps:
            tick()
            times = torch.full((n,), int(t))
            if guidance == 1:
                said = self.predict(latents, times, texts)
            else:
                both = self.predict(latents.repeat(2, 1, 1, 1), times.repeat(2), [*texts, *[empty] * n])
                said = both[n:] + guidance * (both[:n] - both[n:])
            latents = sampler.step(said, t, latents).prev_sample
        return latents.cpu()

    def decode(self, latents: Tensor) -> list[Any]:
        """Pictures (PIL) of latents, one at a time; the VAE is back on the CPU afterwards."""
        pipe, pictures = self.parts.pipe, list[Any]()
        pipe.vae.to(self.device)
        for one in latents.split(1):
            decoded = pipe.vae.decode(one.to(self.device) / pipe.vae.config.scaling_factor).sample
            pictures += pipe.image_processor.postprocess(decoded, output_type="pil")
        pipe.vae.to("cpu")
        return pictures

    def _sampler(self) -> Any:
        """DDIM on the base's own schedule; a schedule that ends in pure noise is walked from its very end."""
        config = dict(self.schedule.config)
        spacing = "trailing" if config.get("rescale_betas_zero_snr") else "leading"
        names = (
            "num_train_timesteps",
            "beta_start",
            "beta_end",
            "beta_schedule",
            "trained_betas",
            "prediction_type",
            "rescale_betas_zero_snr",
        )
        kept = {name: config[name] for name in names if config.get(name) is not None}
        return load_package("diffusers").DDIMScheduler(
            **kept, clip_sample=False, set_alpha_to_one=False, steps_offset=1, timestep_spacing=spacing
        )


@contextmanager
def loaded(base: Checkpoint, config: Path | None, device: torch.device, precision: str) -> Generator[Denoiser]:
    """The base in memory for as long as the block lasts: only one is there at a time."""
    parts = load_parts(base, config, WEIGHTS[precision])
    try:
        parts.pipe.unet.to(device)
        encoders = networks(parts.pipe)[2:]
        arch = live_arch(parts.pipe.unet, encoders)
        yield Denoiser(parts, device, live_layers(arch, parts.pipe.unet, encoders), make_noise_schedule(parts))
    finally:
        if device.type == "cuda":
            parts.pipe.unet.to("cpu")
            gc.collect()
            torch.cuda.empty_cache()


def resolve_precision(wanted: str, device: torch.device) -> str:
    """``auto`` as bf16 on a GPU that has it, fp16 on another, ``no`` on a CPU."""
    if wanted != "auto":
        return wanted
    if device.type != "cuda":
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
