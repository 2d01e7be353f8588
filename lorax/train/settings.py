"""What a run of the standalone trainer is told."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from lorax.train.network import DEFAULT_K
from lorax.train.options import NetworkOptions

PRECISIONS = ("no", "fp16", "bf16")
SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True)
class TrainSettings:
    """The defaults are for a person who has never trained."""

    base: Path
    """Checkpoint file or diffusers folder."""
    pictures: Path
    output: Path
    """The ``.safetensors`` file to write."""
    config: Path | None = None
    """Diffusers folder that says how the networks of a single file are built; None lets diffusers fetch the family's."""
    network: NetworkOptions = field(default_factory=NetworkOptions)
    k: int = DEFAULT_K
    caption: str | None = None
    """For pictures without a caption file."""
    resolution: int = 512
    steps: int = 1000
    batch_size: int = 1
    accumulate: int = 1
    learning_rate: float = 1e-3
    warmup: int = 50
    schedule: str = "constant"
    precision: str = "no"
    seed: int = 0
    save_every: int = 250
    sample_every: int = 250
    sample_prompts: tuple[str, ...] = ()
    """By default the first caption."""
    sample_steps: int = 20
    sample_guidance: float = 7.0
    gradient_checkpointing: bool = False
    resume: bool = False
    export: Path | None = None
    overwrite: bool = False
    device: str = "auto"
    dtype: str = "fp16"
    """Of the file."""

    @property
    def state_folder(self) -> Path:
        """What a run needs to go on: beside the output."""
        return self.output.with_name(f"{self.output.stem}-state")

    @property
    def sample_folder(self) -> Path:
        return self.output.with_name(f"{self.output.stem}-samples")

    def bound(self) -> dict[str, str]:
        """What must not change between a run and its resumption."""
        said = asdict(self)
        return {name: str(said[name]) for name in ("k", "resolution", "batch_size", "accumulate", "seed")} | {
            name: str(said["network"][name]) for name in ("kind", "target", "exclude")
        }
