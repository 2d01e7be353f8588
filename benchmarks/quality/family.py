"""The families of a run, made on demand: models and adapters appear in the work folder when somebody asks for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.quality import shapes
from benchmarks.quality.adapters import Kind, train_adapter
from benchmarks.quality.bases import distil_base, fine_tune, train_source
from benchmarks.quality.cuts import cut_blocks, cut_width
from benchmarks.quality.layouts import read_unet, write_model
from benchmarks.quality.pictures import STYLES
from benchmarks.quality.shapes import Shape
from benchmarks.quality.stage import Material, Stage
from lorax import open_checkpoint

STRANGER = 99
"""Seed of the independent training of each family; nothing is shared with the others but data, VAE and text encoders."""
SHAPES = {
    ("sd", "source"): shapes.SD,
    ("sd", "finetune"): shapes.SD,
    ("sd", "blocks"): shapes.SD_BLOCKS,
    ("sd", "width"): shapes.SD_WIDTH,
    ("sd", "independent"): shapes.SD,
    ("xl", "source"): shapes.XL,
    ("xl", "finetune"): shapes.XL,
    ("xl", "blocks"): shapes.XL_BLOCKS,
    ("xl", "independent"): shapes.XL,
}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Effort:
    """Training steps and numbers of pictures."""

    vae: int
    source: int
    independent: int
    finetune: int
    distil: int
    adapter: int
    judge: int
    distill_adapter: int
    """Of ``--method distill``."""
    base_pictures: int = 6144
    style_pictures: int = 1536
    held_out: int = 256
    samples: int = 64


FULL = Effort(vae=1000, source=800, independent=800, finetune=450, distil=400, adapter=200, judge=600, distill_adapter=100)
CI = Effort(
    vae=200,
    source=350,
    independent=60,
    finetune=150,
    distil=120,
    adapter=60,
    judge=0,
    distill_adapter=30,
    base_pictures=3072,
    held_out=192,
    samples=0,
)


@dataclass(frozen=True)
class Member:
    """One model of a family."""

    family: str
    seed: int
    name: str

    @property
    def shape(self) -> Shape:
        return SHAPES[self.family, self.name]

    @property
    def domain(self) -> str:
        return "dark" if self.name == "finetune" else "light"

    def __str__(self) -> str:
        return f"{self.family}-{self.seed} {self.name}"


class Workshop:
    """Makes what is asked for, once, in a folder."""

    def __init__(self, folder: Path, effort: Effort, say: Say) -> None:
        from diffusers.utils.logging import disable_progress_bar
        from transformers.utils.logging import disable_progress_bar as disable_theirs

        disable_progress_bar()
        disable_theirs()
        self.folder, self.effort, self.say = folder, effort, say
        folder.mkdir(parents=True, exist_ok=True)
        self.stage = Stage(folder, effort.vae, self._told("VAE"))
        self._materials: dict[tuple[int, int, str, str], Material] = {}
        self._unets: dict[Path, Any] = {}

    def model(self, member: Member) -> Path:
        """The member's single file."""
        if member.name == "independent" and member.seed != STRANGER:
            return self.model(Member(member.family, STRANGER, "independent"))
        path = self.folder / f"{member.family}-{member.seed}" / f"{member.name}.safetensors"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            unet = self._train(member)
            encoders = self.stage.encoders(member.shape.xl)
            write_model(path, member.shape, unet, self.stage.vae, self.stage.tokenizer, encoders)
        return path

    def has(self, member: Member) -> bool:
        """Whether the member was made already."""
        return (self.folder / f"{member.family}-{member.seed}" / f"{member.name}.safetensors").exists()

    def unet(self, member: Member) -> Any:
        """The member's UNet, kept in memory."""
        path = self.model(member)
        if path not in self._unets:
            self._unets[path] = read_unet(path)
        return self._unets[path]

    def adapter(self, member: Member, kind: Kind, style: str, seed: int = 0) -> Path:
        """The file of an adapter trained on the member."""
        base = self.model(member)
        path = base.parent / "adapters" / f"{member.name}-{kind}-{style}{f'-{seed}' if seed else ''}.safetensors"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            self.say(f"{member}: training {kind} for {style}")
            material = self.style(member.domain, style)
            with open_checkpoint(base) as checkpoint:
                train_adapter(self.stage, member.shape, self.unet(member), kind, material, self.effort.adapter, seed, checkpoint, path)
        return path

    def style(self, domain: str, style: str) -> Material:
        """What adapters learn from."""
        return self._material(self.effort.style_pictures, 700 + 10 * STYLES.index(style), domain, style)

    def held_out(self, domain: str, style: str) -> Material:
        """What they are judged by."""
        return self._material(self.effort.held_out, 88, domain, style)

    def _train(self, member: Member) -> Any:
        shape, effort, told = member.shape, self.effort, self._told(str(member))
        pictures = self._material(effort.base_pictures, 105, member.domain)
        torch.manual_seed(member.seed)
        if member.name in ("source", "independent"):
            return train_source(self.stage, shape, member.seed, pictures, getattr(effort, member.name), told)
        source = self.unet(Member(member.family, member.seed, "source"))
        if member.name == "finetune":
            return fine_tune(self.stage, shape, source, pictures, effort.finetune, member.seed, told)
        pruned, kept = (cut_blocks(source, shape), None) if member.name == "blocks" else cut_width(source, shape)
        return distil_base(self.stage, shape, pruned, source, pictures, effort.distil, member.seed, told, kept)

    def _material(self, count: int, seed: int, domain: str = "light", style: str = "plain") -> Material:
        key = count, seed, domain, style
        if key not in self._materials:
            self._materials[key] = self.stage.material(*key)
        return self._materials[key]

    def _told(self, what: str) -> Callable[[int, int, float], None]:
        def tell(step: int, steps: int, loss: float) -> None:
            if step % 100 == 99 or step + 1 == steps:
                self.say(f"{what}: step {step + 1} of {steps}, loss {loss:.4f}")

        return tell
