"""What a distillation is told."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from lorax.layers import Component
from lorax.transfer.types import Method

PRECISIONS = ("auto", "no", "fp16", "bf16")
DEFAULT_STEPS = 100
DEFAULT_RANK = 16
"""r of the written LoRA for an adapter that has no ranks of its own to go by."""
LARGEST_RANK = 64
LEARNING_RATE = 1.0
"""The largest rate that is tried, times one over the mean width of the trained layers: 2e-2 at width 48, 8e-4 at 1280."""
HELD_OUT = 8
"""One in this many samples is never learned from; the figures of the report are taken on them."""


@dataclass(frozen=True)
class DistillSettings:
    """The defaults are for the models' own resolution and one GPU."""

    steps: int = DEFAULT_STEPS
    """Training steps."""
    rank: int | None = None
    """r of the written LoRA; None: the adapter's own where it is an ordinary LoRA, at most `LARGEST_RANK`, else `DEFAULT_RANK`."""
    start: Method | Literal["none"] = "auto"
    """The weights-only transfer that training starts from; it is taken only where it measures better than starting from nothing."""
    prompts: Path | None = None
    """UTF-8 text, one prompt a line; None: generated from a built-in list of words and the adapter's own trigger words."""
    samples: int = 32
    """Samples that each of the three makes: source, source with the adapter, target."""
    points: int = 4
    """Noisy versions of each sample that are learned from."""
    sampling_steps: int = 15
    """DDIM steps of a sample."""
    guidance: float = 3.0
    """Classifier-free guidance of the samples: low, so that they stay near what the models know; 1 turns it off."""
    resolution: int | None = None
    """Width and height of the samples in pixels; None: the target's own."""
    batch_size: int = 4
    learning_rate: float | None = None
    """Adam's; None: the best of some short trials."""
    seed: int = 0
    precision: str = "auto"
    """auto: bf16 on a GPU that has it, fp16 on another, full on a CPU."""
    gradient_checkpointing: bool = False
    source_config: Path | None = None
    """Diffusers folder that says how the source's networks are built, for a single file that diffusers cannot look up."""
    target_config: Path | None = None
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    components: tuple[Component, ...] | None = None
    strength: float = 1.0
    format: Literal["kohya", "peft"] = "kohya"
    dtype: str = "fp16"
    """Of the file."""
    device: str = "auto"
    overwrite: bool = False
    force: bool = False
    """Distil an adapter that was made by a transfer, and go on where the two VAEs differ."""
    resume: bool = False
    """Go on from the state beside the output."""
    save_every: int = 50
    """Steps between saved states."""

    def bound(self) -> dict[str, str]:
        """What decides the result, as strings: it goes into the file, and must not change between a run and its resumption."""
        free = ("device", "overwrite", "force", "resume", "save_every", "source_config", "target_config", "prompts")
        values = {name: value for name, value in asdict(self).items() if name not in free}
        values["components"] = None if self.components is None else ",".join(str(c) for c in self.components)
        values["only"], values["skip"] = ",".join(self.only), ",".join(self.skip)
        return {"method": "distill"} | {name: str(value) for name, value in values.items() if value not in (None, "")}


def state_folder(output: Path) -> Path:
    """Where a run that was stopped keeps what it needs to go on."""
    return output.with_name(f"{output.stem}-distill-state")
