"""A small classifier trained on real pictures, and what it says of samples: style, content, Fréchet distance of its features."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.quality.pictures import COLOURS, DOMAINS, PLACES, SHAPES, STYLES, attributes, draw
from benchmarks.quality.stage import Stage, rate_at
from benchmarks.quality.vae import decode_latents, encode_pixels

_PICTURES = 1024
"""Per domain and style."""
_BATCH = 128
_REAL = 1024


@dataclass(frozen=True)
class Opinion:
    """Of a set of samples."""

    style: float
    """Share in the wanted style."""
    content: float
    """Share of the captions' three words (colour, shape, place) that are right."""
    frechet: float
    """Distance to real pictures of that style and domain, in the classifier's features (64 dimensions)."""

    def to_json(self) -> dict[str, float]:
        return {name: round(value, 4) for name, value in asdict(self).items()}


class Judge(nn.Module):
    """Style, colour, shape and place of a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 24, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(24, 32, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(32, 48, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(48 * 16, 64),
            nn.SiLU(),
        )
        self.heads = nn.ModuleList([nn.Linear(64, len(names)) for names in (STYLES, COLOURS, SHAPES, PLACES)])
        self._real: dict[tuple[str, str], Tensor] = {}

    def forward(self, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Features [n, 64] and the logits of each head."""
        features = self.body(pixels)
        return features, [head(features) for head in self.heads]

    @torch.no_grad()
    def opinion(self, stage: Stage, latents: Tensor, caption: Tensor, domain: str, style: str) -> Opinion:
        """What the samples show."""
        features, logits = self(decode_latents(stage.vae, latents))
        said = [head.argmax(1) for head in logits]
        right = torch.stack([a == b for a, b in zip(said[1:], attributes(caption), strict=True)])
        in_style = said[0] == STYLES.index(style)
        return Opinion(float(in_style.float().mean()), float(right.float().mean()), frechet(features, self.real(stage, domain, style)))

    @torch.no_grad()
    def real(self, stage: Stage, domain: str, style: str) -> Tensor:
        """Features of real pictures, seen through the VAE as samples are."""
        if (domain, style) not in self._real:
            self._real[domain, style] = self(_through(stage, draw(_REAL, 77, domain, style).pixels))[0]
        return self._real[domain, style]


def make_judge(stage: Stage, path: Path, steps: int) -> Judge:
    """Trained once, read afterwards."""
    torch.manual_seed(5)
    judge = Judge()
    if path.exists():
        judge.load_state_dict(torch.load(path, weights_only=True))
        return judge.eval().requires_grad_(False)
    pixels, labels = _lessons(stage)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(6)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, steps, 3e-3, 30)
        chosen = torch.randint(0, len(pixels), (_BATCH,), generator=generator)
        noise = torch.randn(_BATCH, 3, 16, 16, generator=generator) * 0.1 * torch.rand(_BATCH, 1, 1, 1, generator=generator)
        logits = judge(pixels[chosen] + noise)[1]
        loss = sum(functional.cross_entropy(one, label[chosen]) for one, label in zip(logits, labels, strict=True))
        optimizer.zero_grad()
        loss.backward()  # pyright: ignore[reportAttributeAccessIssue]
        optimizer.step()
    torch.save(judge.state_dict(), path)
    return judge.eval().requires_grad_(False)


def frechet(a: Tensor, b: Tensor) -> float:
    """‖μ_a − μ_b‖² + tr(C_a + C_b − 2 (C_a C_b)^½) of two sets of features (Dowson & Landau 1982)."""
    a, b = a.double(), b.double()
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(cov_a)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp_min(0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross)


def _lessons(stage: Stage) -> tuple[Tensor, list[Tensor]]:
    """Real pictures as drawn and as the VAE gives them back, with their labels."""
    pixels: list[Tensor] = []
    labels: list[Tensor] = []
    for i, (domain, style) in enumerate((d, s) for d in DOMAINS for s in STYLES):
        made = draw(_PICTURES, 50 + i, domain, style)
        one = torch.stack([torch.full_like(made.caption, STYLES.index(style)), *attributes(made.caption)])
        pixels += [made.pixels, _through(stage, made.pixels)]
        labels += [one, one]
    return torch.cat(pixels), list(torch.cat(labels, 1))


def _through(stage: Stage, pixels: Tensor) -> Tensor:
    return decode_latents(stage.vae, encode_pixels(stage.vae, pixels))
