"""The other base models that the WebUI loads: SD2, SDXL at its full depth, SSD-1B, and an SD1 with fewer blocks.

Small ones of these layouts lie in the bench's folder, each with a .yaml, or the test is skipped: sd2_a, sd2_b; deep_a (SDXL), ssd_a
(SSD-1B, of deep_a's blocks, with SDXL's .yaml); bk_a and bk_b (BK-SDM base with its blocks numbered through, of a's blocks).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lorax import open_checkpoint, read_adapter, write_adapter
from tests.hosts.adapters import Adapters, write_random

CASES = [
    (("sd2_a", "sd2_b", "sd2_a"), 0.5),
    (("deep_a", "ssd_a", "deep_a"), 0.0),  # the tests' adapters for OpenCLIP lack q, and the built-in drops them in the exported file
    (("a", "bk_a", "a", "bk_b", "bk_a"), 0.5),
]
"""Checkpoints in turn, the adapter's own first, and the strength in the text encoders."""


@pytest.mark.parametrize(("checkpoints", "te"), CASES, ids=[c[1] for c, _ in CASES])
def test_pictures_there_and_back(bench: Any, checkpoints: tuple[str, ...], te: float) -> None:
    """Ours is the exported file's, and the same when the checkpoint comes back."""
    if missing := set(checkpoints) - set(bench.checkpoints):
        pytest.skip(f"the bench has no {', '.join(sorted(missing))}")
    source = checkpoints[0]
    name = f"of-{source}"
    adapters = Adapters(bench)
    write_random(adapters.lora / f"{name}.safetensors", adapters.checkpoint(source), seed=8)
    for target in set(checkpoints):
        adapters.export(name, source, target)
        spell_like_the_checkpoint(adapters.lora / f"{name}-for-{target}.safetensors", adapters.checkpoint(target))
    bench.post("/lorax/v1/refresh")
    seen: dict[str, str] = {}
    for checkpoint in checkpoints:
        bench.switch(checkpoint)
        without = bench.picture("a cat")
        assert f"Model: {checkpoint}" in without.infotext, "the WebUI has loaded it"
        made = bench.picture(f"a cat <lorax:{name}:1:{te}>")
        assert "LoraX problems" not in made.infotext
        assert made.pixels == bench.picture(f"a cat <lora:{name}-for-{checkpoint}:unet=1:te={te}>").pixels != without.pixels
        assert made.pixels != bench.picture(f"a cat <lorax:{name}:0:1>").pixels != without.pixels, "the text encoders have their part"
        assert bench.picture("a cat").pixels == without.pixels
        assert made.pixels == seen.setdefault(checkpoint, made.pixels)
    assert len(set(seen.values())) == len(seen)


def spell_like_the_checkpoint(path: Path, checkpoint: Path) -> None:
    """With the names of the checkpoint's own layers: where blocks are missing, the built-in takes diffusers' names for other layers."""
    with open_checkpoint(checkpoint) as base:
        arch, shapes = base.arch, {i: layer.shape for i, layer in base.layers.items()}
    adapter = read_adapter(path, arch)
    modules = {i: f for i, m in adapter.modules.items() if (f := m.factors()) is not None}
    assert len(modules) == len(adapter.modules)
    spelled = replace(arch, kohya_unet="single_file")
    write_adapter(path, modules, spelled, shapes=shapes, dtype=torch.float32, metadata=adapter.metadata, overwrite=True)
