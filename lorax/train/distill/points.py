"""What is learned from: noisy versions of the models' own samples, and what the adapter changes there in the source's prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from lorax.errors import FileError
from lorax.safefile import open_tensors, write_safetensors
from lorax.train.distill.denoiser import Denoiser, Texts
from lorax.train.distill.settings import HELD_OUT, DistillSettings

ORIGINS = ("source", "source with the adapter", "target")
"""Whose samples a point is of: 0, 1 or 2."""
EMPTY_SHARE = 0.1
"""Points that are asked with the empty prompt: pictures are drawn with guidance, which needs its effect too."""
EDGE = 0.02
"""Timesteps nearer than this to either end of the schedule are left out, as a share of it."""

Tick = Callable[[], None]
"""Called before each forward pass; it may raise."""


@dataclass(frozen=True, eq=False)
class Points:
    """N points on L samples; tensors on the CPU, latents and predictions in fp32."""

    latents: Tensor
    """[L, c, h, w]: samples without noise"""
    sample: Tensor
    """[N]: which of them"""
    origin: Tensor
    """[N]: index in `ORIGINS`"""
    prompt: Tensor
    """[N]: index of the prompt; −1 is the empty one"""
    times: Tensor
    """[N]: timesteps of the target's schedule"""
    seeds: Tensor
    """[N]: what the noise is drawn from"""
    held: Tensor
    """[N], bool: only measured on, never learned from"""
    signal: Tensor
    """[T]: ᾱ of the target's schedule"""
    effect: Tensor
    """[N, c, h, w]: source with the adapter − source, as the target would predict it"""
    base: Tensor
    """[N, c, h, w]: what the target predicts by itself; empty until it was asked"""

    def __len__(self) -> int:
        return len(self.sample)

    def noisy(self, chosen: Sequence[int]) -> Tensor:
        """``√ᾱ x + √(1 − ᾱ) ε`` of the chosen points."""
        a = self.signal[self.times[chosen]].float()[:, None, None, None]
        x = self.latents[self.sample[chosen]]
        noise = torch.stack([draw_noise(int(self.seeds[i]), tuple(x.shape[1:])) for i in chosen])
        return a.sqrt() * x + (1 - a).sqrt() * noise

    def prompts(self, chosen: Sequence[int], prompts: Sequence[str]) -> list[str]:
        """The prompt of each chosen point."""
        return ["" if (j := int(self.prompt[i])) < 0 else prompts[j] for i in chosen]

    def where(self, held: bool, origin: int | None = None) -> list[int]:
        """The points that are held out or not, of one origin or of all."""
        mask = self.held == held
        if origin is not None:
            mask &= self.origin == origin
        return mask.nonzero().flatten().tolist()

    def save(self, path: Path, bound: Mapping[str, str]) -> None:
        tensors = {name: value.contiguous() for name, value in vars(self).items()}
        write_safetensors(path, {**tensors, "held": self.held.to(torch.uint8)}, bound, overwrite=True)

    @classmethod
    def load(cls, path: Path) -> tuple[Points, dict[str, str]]:
        """The points and what they are bound to. FileError where there are none."""
        with open_tensors(path) as file:
            found = {name: file.read(name).clone() for name in file.tensors}
            bound = dict(file.metadata)
        try:
            return cls(**{**found, "held": found["held"].bool()}), bound
        except (TypeError, KeyError):
            raise FileError(f"'{path}' is damaged: start without --resume.") from None


def draw_noise(seed: int, shape: tuple[int, ...]) -> Tensor:
    """The same on every machine."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def draw_samples(denoiser: Denoiser, texts: Texts, prompts: Sequence[str], settings: DistillSettings, size: int, tick: Tick) -> Tensor:
    """`settings.samples` latents of a model, [n, c, size, size]; prompt i is drawn from noise i, in every model the same."""
    channels = int(denoiser.parts.pipe.unet.config.in_channels)
    found: list[Tensor] = []
    for start in range(0, settings.samples, settings.batch_size):
        mine = range(start, min(start + settings.batch_size, settings.samples))
        noise = torch.stack([draw_noise(settings.seed * 1_000_003 + i, (channels, size, size)) for i in mine])
        said = [texts[prompts[i % len(prompts)]] for i in mine]
        found.append(denoiser.sample(said, texts[""], noise, settings.sampling_steps, settings.guidance, tick))
    return torch.cat(found)


def make_points(samples: Sequence[Tensor], prompts: Sequence[str], signal: Tensor, settings: DistillSettings) -> Points:
    """The points of the three models' samples (in the order of `ORIGINS`), without predictions, spread evenly over the schedule."""
    per = settings.samples * settings.points
    n = per * len(samples)
    generator = torch.Generator().manual_seed(settings.seed)
    steps = len(signal)
    even = (torch.randperm(n, generator=generator) + 0.5) / n
    sample = torch.arange(n) // settings.points
    within = sample % settings.samples
    prompt = within % len(prompts)
    prompt[torch.rand(n, generator=generator) < EMPTY_SHARE] = -1
    return Points(
        latents=torch.cat(list(samples)),
        sample=sample,
        origin=sample // settings.samples,
        prompt=prompt,
        times=((EDGE + (1 - 2 * EDGE) * even) * (steps - 1)).round().long(),
        seeds=torch.randint(1 << 60, (n,), generator=generator),
        held=within % min(HELD_OUT, settings.samples) == min(HELD_OUT, settings.samples) - 1,
        signal=signal.float().cpu(),
        effect=torch.empty(0),
        base=torch.empty(0),
    )


def matching_times(source: Tensor, target: Tensor, times: Tensor) -> Tensor:
    """For timesteps of the target's schedule (ᾱ: [T]) those of the source's whose signal-to-noise ratio is nearest, [n]."""
    if torch.equal(source, target):
        return times
    logit = torch.logit(source.double(), eps=1e-9)
    wanted = torch.logit(target.double()[times], eps=1e-9)
    return (logit[None, :] - wanted[:, None]).abs().argmin(dim=1)


def convert_change(change: Tensor, velocity: bool, wanted: bool, signal: Tensor) -> Tensor:
    """A change of a prediction in the other's terms: ``v = (ε − √(1−ᾱ) x) / √ᾱ``, so ``Δv = Δε / √ᾱ`` at the same noisy x.

    velocity: `change` is of v; wanted: v is wanted. signal: ᾱ, [n].
    """
    if velocity == wanted:
        return change
    root = signal.float().sqrt()[:, None, None, None]
    return change * root if velocity else change / root


def chunks(chosen: Sequence[int], size: int) -> list[list[int]]:
    """In order, at most `size` at a time."""
    return [list(chosen[i : i + size]) for i in range(0, len(chosen), size)]


def predict_points(
    denoiser: Denoiser, points: Points, chosen: Sequence[int], prompts: Sequence[str], texts: Texts, size: int, tick: Tick
) -> Tensor:
    """The base's predictions at the chosen points, in its own terms and on its own schedule, on the CPU."""
    found: list[Tensor] = []
    with torch.no_grad():
        for some in chunks(chosen, size):
            tick()
            times = matching_times(denoiser.signal.cpu().float(), points.signal, points.times[some])
            said = [texts[prompt] for prompt in points.prompts(some, prompts)]
            found.append(denoiser.predict(points.noisy(some), times, said).cpu())
    return torch.cat(found) if found else torch.empty(0)


def with_effect(points: Points, change: Tensor, velocity: bool, wanted: bool) -> Points:
    """The points with the source's change, in the target's terms. velocity: the source predicts v; wanted: the target does."""
    return replace(points, effect=convert_change(change, velocity, wanted, points.signal[points.times]))
