"""The demo's trained family: a model of 16 × 16 pictures with SD1.5's names, its block-pruned child, and a LoRA that turns the hue.

Made by ``python -m benchmarks.quality --sample`` (docs/quality.md); 4 MB in half precision.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from converter.console import quiet_libraries
from converter.demo_models import Kin
from lorax import Progress

TRAINED = Path(__file__).parent / "samples" / "trained"
CAPTIONS = tuple((TRAINED / "prompts.txt").read_text(encoding="utf-8").splitlines())
GUIDANCE = 2.0
MISSING = "To see the trained family's pictures: pip install 'lorax-webui[train]', then run this again."


def build_trained(out: Path) -> Kin:
    """Put the family into the demo's folder `out`; what the child shares with the source is stored once."""
    source, child = out / "models" / "trained-base", out / "models" / "trained-pruned"
    for folder, parts in ((source, ("source",)), (child, ("source", "blocks"))):
        for part in parts:
            shutil.copytree(TRAINED / part, folder, dirs_exist_ok=True)
    adapter = Path(shutil.copy(TRAINED / "hue.safetensors", out / "adapters" / "trained-hue.safetensors"))
    return Kin("Small models that were trained", source, (child,), (adapter,))


def draw(kin: Kin, out: Path, progress: Progress) -> Path | None:
    """The LoRA on its own base and on the child, drawn side by side; None without the packages of the extra ``[train]``."""
    if any(importlib.util.find_spec(name) is None for name in ("diffusers", "transformers", "accelerate", "PIL")):
        return None
    from lorax.train.compare import CompareSettings, compare_pictures

    quiet_libraries()
    settings = CompareSettings(CAPTIONS, ("none", "auto"), guidance=GUIDANCE, batch_size=len(CAPTIONS), device="cpu", overwrite=True)
    compare_pictures(kin.adapters[0], kin.source, kin.targets[0], out / "pictures.png", settings, progress)
    return out / "pictures.png"
