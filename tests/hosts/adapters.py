"""Adapters for the checkpoints of a bench, and the converter's own files of the same transfers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch

from converter.__main__ import main
from lorax import (
    BaseHint,
    Factors,
    LayerKind,
    open_checkpoint,
    read_adapter,
    to_lorax,
    to_sigma,
    write_adapter,
    write_native,
    write_self_contained,
)
from lorax.layers import LayerSpec
from tests.hosts.bench import Bench
from tests.hosts.offsets import write_expected, write_offsets


@dataclass(frozen=True)
class Adapters:
    """What lies in the bench's folders: ``plain``, ``second``, ``sigma``, ``whole`` (of a base that is nowhere) and two with offsets
    for a, ``xl`` for xl_a; of each of them what the built-in is to do for a checkpoint, called ``<adapter>-for-<checkpoint>``: the
    converter's fp32 file, where it has all."""

    bench: Bench

    @property
    def lora(self) -> Path:
        return self.bench.models / "Lora"

    @property
    def lorax(self) -> Path:
        return self.bench.models / "Lorax"

    def checkpoint(self, name: str) -> Path:
        return self.bench.models / "Stable-diffusion" / f"{name}.safetensors"

    def write_ordinary(self) -> None:
        """Ordinary LoRAs of a, one of them reformed."""
        write_random(self.lora / "plain.safetensors", self.checkpoint("a"), seed=3)
        write_random(self.lora / "second.safetensors", self.checkpoint("a"), seed=4)
        write_random(self.lorax / "apart.safetensors", self.checkpoint("a"), seed=5)
        write_sigma(self.lora / "sigma.safetensors", self.lora / "plain.safetensors", self.checkpoint("a"))
        (self.lora / "corrupt.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{ no header")
        for adapter in ("plain", "second", "sigma"):
            for target in ("a", "b"):
                self.export(adapter, "a", target)

    def write(self) -> None:
        """Everything that the tests use."""
        self.write_ordinary()
        write_contained(self.lora / "whole.safetensors", self.lora / "plain.safetensors", self.checkpoint("a"))
        for target in ("a", "b"):
            self.export("whole", None, target)
        for name, beside in (("offset", False), ("offset-both", True)):
            write_offsets(self.lora / f"{name}.safetensors", self.lora / "plain.safetensors", self.checkpoint("a"), beside=beside)
            for target in ("a", "b"):
                exported = self.lora / f"plain-for-{target}.safetensors", self.checkpoint(target)
                write_expected(self.lora / f"{name}-for-{target}.safetensors", *exported, beside=beside)
        if "xl_a" in self.bench.checkpoints:
            write_random(self.lora / "xl.safetensors", self.checkpoint("xl_a"), seed=6)
            for target in ("xl_a", "xl_b"):
                self.export("xl", "xl_a", target)

    def write_plain(self) -> None:
        """``plain`` and its file for a alone."""
        write_random(self.lora / "plain.safetensors", self.checkpoint("a"), seed=3)
        self.export("plain", "a", "a")

    def export(self, adapter: str, source: str | None, target: str, name: str | None = None, *more: str) -> str:
        """The converter's fp32 file; returns the name for ``<lora:…>``."""
        name = name or f"{adapter}-for-{target}"
        command = ["transfer", str(self.lora / f"{adapter}.safetensors"), "--target", str(self.checkpoint(target))]
        command += ["--output", str(self.lora / f"{name}.safetensors"), "--dtype", "fp32"]
        cache = str(self.bench.models.parent / "converter-cache")  # a common one may hold what an older algorithm computed, a bit off
        with patch.dict(os.environ, LORAX_CACHE=cache):
            assert main([*command, *(["--source", str(self.checkpoint(source))] if source else []), *more]) == 0
        return name


def is_wanted(spec: LayerSpec) -> bool:
    """Attention, feed-forward and projections, of the UNet and the text encoders; OpenCLIP without its q, so that it is incomplete."""
    if spec.kind not in (LayerKind.LINEAR, LayerKind.CONV) or spec.unit.kind not in ("transformer", "attention", "text"):
        return False
    return not (spec.id.component == "te2" and spec.role == "self_attn.q_proj")


def write_random(path: Path, checkpoint: Path, seed: int, rank: int = 4) -> Path:
    """An ordinary LoRA with random factors, strong enough to change every picture."""
    generator = torch.Generator().manual_seed(seed)
    with open_checkpoint(checkpoint) as base:
        shapes = {i: layer.shape for i, layer in base.layers.items() if is_wanted(layer.spec)}
        modules: dict[object, Factors] = {}
        for i, shape in shapes.items():
            columns = torch.Size(shape[1:]).numel()
            up = torch.randn(shape[0], rank, generator=generator) * 0.25
            modules[i] = Factors(up, torch.randn(rank, columns, generator=generator) * columns**-0.5)
        metadata = {"ss_base_model_version": base.arch.base_model_version, "ss_sd_model_name": checkpoint.name, "ss_output_name": path.stem}
        write_adapter(path, modules, base.arch, shapes=shapes, metadata=metadata, overwrite=True)
    return path


def write_sigma(path: Path, adapter: Path, checkpoint: Path, k: int = 8) -> Path:
    """The adapter as a LoRA-X file of its base."""
    with open_checkpoint(checkpoint) as base:
        reformed = to_sigma(read_adapter(adapter, base.arch), base, k)
        hashes = base.hashes()
        hint = BaseHint(base.name, hashes.sha256 if hashes else None, hashes.autov1 if hashes else None)
        sigmas = {i: s * 3 for i, s in reformed.sigmas.items()}
        prints = {i: tuple(3 * v for v in f) for i, f in reformed.fingerprints.items()}
        write_native(
            path, sigmas, base.arch, fingerprints=prints, k=k, base=hint, metadata={"ss_base_model_version": "sd_v1"}, overwrite=True
        )
    return path


def write_contained(path: Path, adapter: Path, checkpoint: Path, k: int = 8) -> Path:
    """The adapter on its base's strongest directions, as a self-contained LoRA-X file of a base that is nowhere."""
    with open_checkpoint(checkpoint) as base:
        reformed = to_lorax(read_adapter(adapter, base.arch), base, k)
        hint, metadata = BaseHint("nowhere", "0" * 64), {"ss_base_model_version": "sd_v1"}
        parts = {"k": k, "diagonal": False, "base": hint, "metadata": metadata, "dtype": torch.float32}
        write_self_contained(path, reformed.modules, base.arch, shapes=reformed.shapes, **parts, overwrite=True)
    return path
