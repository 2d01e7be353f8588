"""The VAE that all models share: 16×16 pictures ↔ latents of 4×8×8, diffusers' own class, trained in a minute."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.quality.pictures import DOMAINS, STYLES, draw

CHANNELS = 4
LATENT = 8
SPREAD = 0.1
"""Standard deviation of what an encoder says of a picture; the decoder is trained to bear it."""
_BATCH = 32


def make_vae() -> Any:
    """Untrained, in the layout of Stable Diffusion's."""
    from diffusers import AutoencoderKL

    torch.manual_seed(77)
    return AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=CHANNELS,
        sample_size=16,
        scaling_factor=1.0,
    )


def train_vae(steps: int, progress: Any) -> Any:
    """Mean absolute and squared error; a faint prior keeps the latents near unit size."""
    vae = make_vae()
    mixed = enumerate(product(DOMAINS, STYLES))
    pixels = torch.cat([draw(min(512, 4 * steps), 900 + i, domain, style).pixels for i, (domain, style) in mixed])
    optimizer = torch.optim.AdamW(vae.parameters(), lr=4e-3, weight_decay=0.0, fused=True)
    generator = torch.Generator().manual_seed(78)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * min(1.0, (step + 1) / 40) * 0.5 * (1 + math.cos(math.pi * step / steps))
        batch = pixels[torch.randint(0, len(pixels), (_BATCH,), generator=generator)]
        posterior = vae.encode(batch).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator)
        again = vae.decode(posterior.mean + SPREAD * noise).sample
        error = functional.l1_loss(again, batch) + functional.mse_loss(again, batch)
        loss = error + 1e-3 * posterior.mean.square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        progress(step, steps, float(error.detach()))
    vae.eval().requires_grad_(False)
    vae.quant_conv.weight[CHANNELS:] = 0.0
    vae.quant_conv.bias[CHANNELS:] = 2 * math.log(SPREAD)
    vae.register_to_config(scaling_factor=float(1 / encode_pixels(vae, pixels[::4], raw=True).std()))
    return vae


@torch.no_grad()
def encode_pixels(vae: Any, pixels: Tensor, raw: bool = False) -> Tensor:
    """Latents [n, 4, 8, 8] of unit size, or as the VAE gives them."""
    scale = 1.0 if raw else float(vae.config.scaling_factor)
    return torch.cat([vae.encode(part).latent_dist.mean for part in pixels.split(256)]) * scale


@torch.no_grad()
def decode_latents(vae: Any, latents: Tensor) -> Tensor:
    """Pixels [n, 3, 16, 16], between -1 and 1."""
    scale = float(vae.config.scaling_factor)
    return torch.cat([vae.decode(part / scale).sample for part in latents.split(128)]).clamp(-1, 1)
