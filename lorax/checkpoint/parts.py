"""Find the networks in a file of tensors by the names of its tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lorax.errors import MalformedCheckpoint
from lorax.layers import Component
from lorax.safefile import TensorFile
from lorax.structure import TextStructure, UNetStructure, parse_text, parse_unet

Layout = Literal["single_file", "diffusers"]

_PREFIXES: tuple[tuple[str, Component], ...] = (
    ("model.diffusion_model.", Component.UNET),
    ("diffusion_model.", Component.UNET),
    ("unet.", Component.UNET),
    ("conditioner.embedders.0.transformer.", Component.TE1),
    ("conditioner.embedders.0.model.", Component.TE1),
    ("conditioner.embedders.1.model.", Component.TE2),
    ("conditioner.embedders.1.transformer.", Component.TE2),
    ("cond_stage_model.transformer.", Component.TE1),
    ("cond_stage_model.model.", Component.TE1),
    ("cond_stage_model.", Component.TE1),
)
"""Where single files keep their networks (LDM, SGM, ComfyUI's UNet files). A name belongs to the first prefix that fits."""

_NOT_LAYERS: tuple[tuple[str, str], ...] = (
    ("first_stage_model.", "of the VAE"),
    ("vae.", "of the VAE"),
    ("model_ema.", "of the EMA copy"),
    ("control_model.", "of a ControlNet"),
    ("denoiser.", "of the noise schedule"),
    ("embedder.", "of an image encoder"),
)
CLIP_L_LAYERS = 12
_SCHEDULE = ("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_", "log_one_minus_", "posterior_", "logvar", "lvlb_weights")
MARKERS = ("v_pred", "ztsnr", "edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min", "model.scaled_fp8", "scaled_fp8")
"""Tensors that say something about the model by being there."""
BESIDE = "beside the layers"
_BESIDE = ("position_ids", "logit_scale", "text_projection", "text_projection.weight", "attn_mask", "scaled_fp8")
_SCALES = (".scale_weight", ".weight_scale", ".scale_input", ".input_scale", ".comfy_quant")
"""Beside fp8 weights; the scales of activations are not needed to read them."""


@dataclass(frozen=True, eq=False)
class Part:
    """One network in one file."""

    file: TensorFile
    names: Mapping[str, str]
    """Name in the layout (without the file's prefix) → name of the tensor in the file."""
    layout: Layout
    structure: UNetStructure | TextStructure
    component: Component | None
    """None for a text encoder whose place is not known from the file alone."""


@dataclass(frozen=True, eq=False)
class Found:
    """What one file holds."""

    parts: tuple[Part, ...]
    counted: Mapping[str, int]
    """Tensors that are known and have no layer: ``of the VAE`` → 248."""
    unknown: tuple[str, ...]
    """Tensors that belong to nothing that we know."""


def find_parts(file: TensorFile, component: Component | None = None) -> Found:
    """The networks of a file. `component`: the file is known to hold that one alone, as in a diffusers folder.

    MalformedCheckpoint where a network is there but lacks blocks that the rest depends on (continues "FILE …").
    """
    buckets: dict[tuple[str, Component | None], dict[str, str]] = {}
    counted: dict[str, int] = {}
    bare: dict[str, str] = {}
    for name in file.tensors:
        if component is None and (label := _label(name)):
            counted[label] = counted.get(label, 0) + 1
        elif component is None and (prefix := next((p for p in _PREFIXES if name.startswith(p[0])), None)):
            buckets.setdefault(prefix, {})[name[len(prefix[0]) :]] = name
        else:
            bare[name] = name
    buckets[("", component)] = bare
    parts: list[Part] = []
    unknown: list[str] = []
    for (_, place), names in buckets.items():
        part = _part(file, names, place)
        if part is None:
            unknown.extend(names.values())
        else:
            parts.append(part)
    return Found(tuple(parts), counted, tuple(unknown))


def unplaced(part: Part, used: set[str]) -> tuple[list[str], int]:
    """The tensors of a part that are no layer's: (unknown names, number of those that are known to be none)."""
    left = [(short, name) for short, name in part.names.items() if name not in used]
    unknown = [name for short, name in left if not (short in _BESIDE or short.endswith((*_SCALES, ".position_ids")))]
    return unknown, len(left) - len(unknown)


def _label(name: str) -> str | None:
    if name in MARKERS:
        return "that mark the kind of model"
    if name.rsplit(".", 1)[-1] in _BESIDE:
        return BESIDE
    if "." not in name and name.startswith(_SCHEDULE):
        return "of the noise schedule"
    return next((label for prefix, label in _NOT_LAYERS if name.startswith(prefix)), None)


def _part(file: TensorFile, names: Mapping[str, str], place: Component | None) -> Part | None:
    if place in (None, Component.UNET):
        shapes = {short: file.tensors[name].shape for short, name in _with_late_names(names).items()}
        unet = parse_unet(shapes)
        if unet is not None:
            return Part(file, _with_late_names(names), unet[1], unet[0], Component.UNET)
    if place != Component.UNET:
        full = _with_text_model(names)
        text = parse_text(full)
        if text is not None:
            return Part(file, full, "single_file" if text.kind == "openclip" else "diffusers", text, place)
    return None


def _with_text_model(names: Mapping[str, str]) -> Mapping[str, str]:
    """CLIP's names with ``text_model.``, which some LDM files and transformers 5 leave out."""
    heads = ("embeddings.", "encoder.layers.", "final_layer_norm.")
    return {f"text_model.{short}" if short.startswith(heads) else short: name for short, name in names.items()}


def _with_late_names(names: Mapping[str, str]) -> Mapping[str, str]:
    """LDM names for attentions that diffusers' script leaves in its own spelling: BK-SDM tiny has some in ``up_blocks.0``."""
    old, new = "up_blocks.0.attentions.", "output_blocks."
    if not any(short.startswith(new) for short in names) or not any(short.startswith(old) for short in names):
        return names
    renamed: dict[str, str] = {}
    for short, name in names.items():
        number, _, rest = short[len(old) :].partition(".")
        renamed[f"{new}{number}.1.{rest}" if short.startswith(old) else short] = name
    return renamed


def place_text_encoders(parts: Sequence[Part], family: str) -> list[tuple[Component, Part]]:
    """Which component each part is. Text encoders of unknown place are told apart by depth, then by the order given.

    MalformedCheckpoint where there are more than the family has; its message continues the sentence "FILE …".
    """
    placed = [(part.component, part) for part in parts if part.component is not None]
    taken = {component for component, _ in placed}
    free = [c for c in (Component.TE1, Component.TE2) if c not in taken and (family == "sdxl" or c == Component.TE1)]
    loose = sorted((part for part in parts if part.component is None), key=_depth)
    if len(loose) > len(free):
        raise MalformedCheckpoint(f"has {len(loose)} text encoders where {family} has room for {len(free)}; give each once")
    if len(loose) == 1 and len(free) == 2 and _depth(loose[0]) > CLIP_L_LAYERS:
        free = [Component.TE2]
    return [*placed, *zip(free, loose, strict=False)]


def _depth(part: Part) -> int:
    return part.structure.layers if isinstance(part.structure, TextStructure) else 0
