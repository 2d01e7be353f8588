"""Everything about a distillation that is settled before a network is loaded; what cannot work is refused here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from lorax.actions import check_output
from lorax.adapter import Adapter
from lorax.checkpoint import Checkpoint, open_checkpoint
from lorax.device import resolve_device
from lorax.digest import sha256_file
from lorax.errors import Cancelled, FileError, LoraxError
from lorax.formats import read_adapter
from lorax.layers import LayerId
from lorax.train.distill.denoiser import resolve_precision
from lorax.train.distill.points import ORIGINS, Tick
from lorax.train.distill.prompts import generate_prompts, read_prompts, trigger_words
from lorax.train.distill.settings import DistillSettings
from lorax.train.distill.space import check_predictions, check_same_space, read_latent_space
from lorax.train.distill.start import choose_rank, wanted_layers
from lorax.transfer.types import Progress


@dataclass(frozen=True, eq=False)
class Job:
    """Inputs, opened and found to fit."""

    adapter: Adapter
    source: Checkpoint
    target: Checkpoint
    settings: DistillSettings
    prompts: tuple[str, ...]
    wanted: tuple[LayerId, ...]
    """The adapter's layers whose effect is learned"""
    rank: int
    device: torch.device
    precision: str
    notes: tuple[str, ...]

    def bound(self) -> dict[str, str]:
        """What a resumed run must have in common with the one it goes on from."""
        prompts = hashlib.blake2b(json.dumps(self.prompts).encode(), digest_size=8).hexdigest()
        return {
            **self.settings.bound(),
            "rank": str(self.rank),
            "precision": self.precision,
            "prompts": prompts,
            "adapter": sha256_file(self.adapter.path) if self.adapter.path else self.adapter.name,
            "source": "+".join(str(path.resolve()) for path in self.source.paths),
            "target": "+".join(str(path.resolve()) for path in self.target.paths),
        }

    @property
    def passes(self) -> tuple[int, int, int]:
        """UNet passes for sampling, for measuring, and training steps: what it will cost, counted in single samples."""
        s = self.settings
        doubled = 1 if s.guidance == 1 else 2
        n = len(ORIGINS) * s.samples
        return n * s.sampling_steps * doubled, 3 * n * s.points, s.steps * s.batch_size


@contextmanager
def open_job(adapter: str | Path, source: str | Path, target: str | Path, settings: DistillSettings) -> Generator[Job]:
    """Open the inputs and check them, from headers and a few small tensors.

    Raises NotTransferable for other families, latent spaces or kinds of prediction, BaseMismatch where the adapter is not of the
    source, LoraxError and its kin for the files.
    """
    with ExitStack() as stack:
        opened = stack.enter_context(open_checkpoint(source))
        other = stack.enter_context(open_checkpoint(target))
        read = read_adapter(adapter, opened.arch)
        wanted = wanted_layers(read, opened, other, settings)
        for base in (opened, other):
            if len(base.paths) != 1:
                raise LoraxError(f"'{base.name}' is several files: distillation needs one file or one diffusers folder for each base")
        notes = check_predictions(opened, other)
        spaces = read_latent_space(opened, settings.source_config), read_latent_space(other, settings.target_config)
        notes += check_same_space(*spaces, force=settings.force)
        device = resolve_device(settings.device)
        precision = resolve_precision(settings.precision, device)
        if precision == "fp16" and device.type == "cpu":
            raise LoraxError("fp16 needs a GPU: use --precision bf16 or no")
        if read.offsets:
            notes.append(f"{len(read.offsets)} bias and norm offsets take part in the effect that is learned; the LoRA has none itself")
        prompts = _prompts(settings, read)
        yield Job(
            read, opened, other, settings, prompts, tuple(wanted), choose_rank(read, wanted, settings), device, precision, tuple(notes)
        )


def _prompts(settings: DistillSettings, adapter: Adapter) -> tuple[str, ...]:
    if settings.prompts is not None:
        return tuple(read_prompts(settings.prompts))
    return tuple(generate_prompts(settings.samples, settings.seed, trigger_words(adapter)))


def check_paths(job: Job, output: Path) -> None:
    """Before any work: the output's suffix, and that nothing is overwritten, least of all an input."""
    if output.suffix.lower() != ".safetensors":
        raise FileError(f"'{output}' would be read as another format by some programs: the output has to end in .safetensors")
    inputs = [*job.source.paths, *job.target.paths, *([job.adapter.path] if job.adapter.path else [])]
    check_output(output, inputs, job.settings.overwrite or job.settings.resume)


@dataclass(frozen=True)
class Ticker:
    """Progress and the user's stop, asked before every forward pass."""

    progress: Progress
    cancelled: Callable[[], bool]

    def phase(self, text: str, total: int) -> Tick:
        """What to call before each of `total` passes; raises Cancelled where the user stopped it."""
        done = 0

        def tick() -> None:
            nonlocal done
            if self.cancelled():
                raise Cancelled(f"stopped while {text}")
            self.progress(text, done, max(total, done))
            done += 1

        return tick
