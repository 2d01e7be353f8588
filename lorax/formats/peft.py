"""Dotted files: diffusers and PEFT, old and new.

``unet.<path>.lora_A.weight`` is down, ``.lora_B.weight`` is up; text encoders under ``text_encoder.`` and ``text_encoder_2.``.
Without alphas the scale is 1, unless the metadata's ``lora_adapter_metadata`` (JSON of PEFT configurations, one per component)
says otherwise. Older spellings: an adapter's name before ``weight`` (``.lora_A.default.weight``), ``base_model.model.`` before
the path, ``to_q_lora.down.weight``, ``to_q.lora.down.weight``, ``.processor.``, ``.lora_linear_layer.``. OneTrainer and ComfyUI put
kohya's and LyCORIS' leaves behind dotted paths.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, cast

from torch import Tensor

from lorax.archs import peft_name
from lorax.layers import Component, LayerId
from lorax.structure import Arch

NAME: str = "peft"
_LEAF = re.compile(
    r"(?:\.lora_(?P<ab>[AB])(?:\.(?!weight$|bias$)[^.]+)?\.(?P<what>weight|bias)"
    r"|[._](?:lora|lora_linear_layer)\.(?P<old>down|up)\.weight"
    r"|\.(?P<magnitude>lora_magnitude_vector)(?:\.[^.]+)*"
    r"|\.(?P<plain>oft_R\.weight|lora_embedding_[AB]|lora_(?:down|up|mid)\.weight|alpha|scale|dora_scale|diff|diff_b|w_norm|b_norm|oft_blocks|oft_diag|rescale"
    r"|hada_[wt][12](?:_[ab])?|lokr_[wt][12](?:_[ab])?))$"
)
_AB = {"A": "lora_down", "B": "lora_up"}
_PREFIXES = {
    Component.UNET: ("unet.", "lora_unet."),
    Component.TE1: ("text_encoder.", "lora_te.", "lora_te1.", "clip_l.", "text_encoders.clip_l.transformer."),
    Component.TE2: ("text_encoder_2.", "lora_te2.", "clip_g.", "text_encoders.clip_g.transformer."),
}
"""diffusers' own first; then OneTrainer's internal files, its OMI files, and ComfyUI's."""
_KNOWN_PREFIXES = (
    *(prefix for prefixes in _PREFIXES.values() for prefix in prefixes),
    "diffusion_model.",
    "transformer.",
    "text_encoder_3.",
)
_OLD_TEXT = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


def split(key: str) -> tuple[str, str] | None:
    """(module path, leaf in kohya's and LyCORIS' names) of a tensor name, or None where it is not of this dialect."""
    found = _LEAF.search(key)
    if found is None or "." not in key[: found.start()]:
        return None
    module = _module(key[: found.start()])
    if ab := found["ab"]:
        return module, f"{_AB[ab]}.{found['what']}"
    if old := found["old"]:
        return module, f"lora_{old}.weight"
    return module, found["magnitude"] or found["plain"]


def _module(path: str) -> str:
    path = path.removeprefix("base_model.model.").replace(".processor", "")
    if not path.startswith(_KNOWN_PREFIXES):
        path = f"text_encoder.{path}" if path.startswith("text_model.") else f"unet.{path}"
    parent, _, last = path.rpartition(".")
    if path.startswith("text_encoder") and last in _OLD_TEXT:
        return f"{parent}.{_OLD_TEXT[last]}"
    return f"{path}.0" if last == "to_out" else path


@lru_cache(maxsize=32)
def names(arch: Arch) -> Mapping[str, LayerId]:
    """Every accepted module path: diffusers' paths under each known prefix, and the UNet's original paths too (OMI, ComfyUI)."""
    found: dict[str, LayerId] = {}
    for spec in arch.layers():
        found |= {prefix + spec.id.path: spec.id for prefix in _PREFIXES[spec.id.component]}
        if spec.id.component == Component.UNET:
            found |= {prefix + spec.single_file.module: spec.id for prefix in ("unet.", "diffusion_model.")}
    return MappingProxyType(found)


def scales(metadata: Mapping[str, str], modules: Mapping[str, int]) -> Mapping[str, float]:
    """alpha / r (or alpha / √r) by module, where ``lora_adapter_metadata`` gives it.

    modules: rank of each module.
    """
    try:
        config = cast("dict[str, Any]", json.loads(metadata.get("lora_adapter_metadata", "{}")))
        return {m: scale for m, rank in modules.items() if (scale := _scale(config, m, rank)) is not None}
    except (ValueError, TypeError, AttributeError):
        return {}


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float | None:
    component, _, path = module.partition(".")
    alpha = config.get(f"{component}.lora_alpha")
    for pattern, value in (config.get(f"{component}.alpha_pattern") or {}).items():
        if f".{path}".endswith(f".{str(pattern).removeprefix('^')}"):  # not as the regex that it may be: the file is a stranger's
            alpha = value
    if alpha is None:
        return None
    return float(alpha) / (rank**0.5 if config.get(f"{component}.use_rslora") else rank)


def spelling(modules: Iterable[str], arch: Arch) -> str:
    """``onetrainer`` for its OMI and internal files, else ``peft``."""
    return "onetrainer" if any(m.startswith(("lora_", "clip_")) for m in modules) else NAME


def tensors(factors: Mapping[LayerId, tuple[Tensor, Tensor, Tensor]], arch: Arch) -> dict[str, Tensor]:
    """(down, up, alpha) of each layer in diffusers' names.

    alpha is not stored, readers take the rank for it: so it must be the rank. Ranks must not differ within a component either,
    for older diffusers takes one module's rank for the alpha of all.
    """
    out: dict[str, Tensor] = {}
    for layer, (down, up, _) in factors.items():
        name = peft_name(arch, layer)
        out |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    return out
