"""Models of weights alone, the patchers around them, and the built-in's loader."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorax.archs import kohya_names
from lorax.checkpoint import open_checkpoint
from lorax.digest import tensor_digest
from lorax.layers import Component

MOST_UNMATCHED = 12


@dataclass
class CheckpointInfo:
    """What the WebUI knows of a checkpoint file."""

    filename: str
    sha256: str | None = None

    @property
    def name(self) -> str:
        return Path(self.filename).name

    @property
    def name_for_extra(self) -> str:
        return Path(self.filename).stem

    title = name
    short_title = model_name = name_for_extra


class Weights:
    """A network, and the patches that were merged into it last."""

    def __init__(self, weights: dict[str, Tensor], keys: dict[str, str]) -> None:
        self.pristine, self.merged, self.keys = weights, dict(weights), keys
        self.storage_dtype = torch.float16
        self.loaded_hash, self.merges = "[]", 0

    def refresh(self, patches: dict[tuple[Any, ...], dict[str, Any]]) -> None:
        """Merged again only where identities or strengths differ, whatever lies behind them."""
        wanted = str(list(patches))
        if wanted == self.loaded_hash:
            return
        self.merged = dict(self.pristine)
        for (_, strength, *_), of_one in patches.items():
            for key, (up, down, alpha) in of_one.items():
                delta = (up.float().flatten(1) @ down.float().flatten(1)).reshape(self.merged[key].shape)
                self.merged[key] = self.merged[key] + strength * alpha / down.shape[0] * delta
        self.loaded_hash = wanted
        self.merges += 1

    def state(self) -> str:
        digest = hashlib.sha256()
        for name, weight in self.merged.items():
            digest.update(name.encode() + tensor_digest(weight).encode())
        return digest.hexdigest()


@dataclass(eq=False)
class Patcher:
    """A network with patches that are merged when it is used."""

    model: Weights
    lora_patches: dict[tuple[Any, ...], dict[str, Any]] = field(default_factory=dict)

    def clone(self) -> Patcher:
        return Patcher(self.model, dict(self.lora_patches))

    def add_patches(self, *, filename: str, patches: dict[str, Any], strength_patch: float, online_mode: bool) -> list[str]:
        self.lora_patches[(filename, strength_patch, 1.0, online_mode)] = patches
        return list(patches)

    def use(self) -> str:
        """What a forward pass depends on."""
        self.model.refresh(self.lora_patches)
        return self.model.state()


@dataclass(eq=False)
class Clip:
    """Text encoders: their patcher is one step further away."""

    patcher: Patcher

    def clone(self) -> Clip:
        return Clip(self.patcher.clone())

    def add_patches(self, **given: Any) -> list[str]:
        return self.patcher.add_patches(**given)


@dataclass(eq=False)
class Objects:
    unet: Patcher
    clip: Clip

    def shallow_copy(self) -> Objects:
        return Objects(self.unet, self.clip)


class Model:
    """A loaded checkpoint."""

    def __init__(self, info: CheckpointInfo, beside: list[str]) -> None:
        self.sd_checkpoint_info = info
        self.current_lora_hash = str([])
        with open_checkpoint("+".join([info.filename, *beside])) as checkpoint:
            weights = {str(i): checkpoint.read(layer) for i, layer in checkpoint.layers.items()}
            names = {module: str(i) for module, i in kohya_names(checkpoint.arch).items()}
        parts = []
        for of_unet in (True, False):
            mine = {n: w for n, w in weights.items() if n.startswith(Component.UNET.value) == of_unet}
            parts.append(Patcher(Weights(mine, {module: n for module, n in names.items() if n in mine})))
        self.forge_objects = Objects(parts[0], Clip(parts[1]))
        self.forge_objects_original = self.forge_objects.shallow_copy()
        self.forge_objects_after_applying_lora = self.forge_objects.shallow_copy()


class FakeInitialModel:
    """Stands where no model was loaded yet."""


def load_lora_for_models(
    model: Any, clip: Any, lora: Any, strength_model: float, strength_clip: float, filename: str = "default", online_mode: bool = False
) -> tuple[Any, Any]:
    """Patches on copies; the given patchers where too much of a file fits nothing, or where nothing of it is theirs."""
    unet_patches, rest = _placed(lora, model.model.keys)
    clip_patches, rest = _placed(rest, clip.patcher.model.keys)
    if len(rest) > MOST_UNMATCHED:
        print(f"[LORA] LoRA version mismatch: {filename}")
        return model, clip
    if unet_patches:
        model = model.clone()
        model.add_patches(filename=filename, patches=unet_patches, strength_patch=strength_model, online_mode=online_mode)
    if clip_patches:
        clip = clip.clone()
        clip.add_patches(filename=filename, patches=clip_patches, strength_patch=strength_clip, online_mode=online_mode)
    return model, clip


def _placed(lora: dict[str, Tensor], keys: dict[str, str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(layer → factors, what is left)"""
    rest, found = dict(lora), {}
    for module, layer in keys.items():
        if f"{module}.lora_up.weight" in rest:
            up, down = rest.pop(f"{module}.lora_up.weight"), rest.pop(f"{module}.lora_down.weight")
            found[layer] = up, down, float(rest.pop(f"{module}.alpha"))
    return found, rest
