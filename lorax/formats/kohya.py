"""kohya-style files: one underscored module name, a dot, and the leaf.

Layout: ``lora_unet_<path>.lora_down.weight [r, in(, kh, kw)]``, ``.lora_up.weight [out, r(, 1, 1)]``, ``.alpha``; text encoders
under ``lora_te_`` (SD1, SD2) or ``lora_te1_`` and ``lora_te2_`` (SDXL). LyCORIS puts its own leaves behind the same names;
kohya's OFT files say ``oft_unet_``, LyCORIS' wrapper ``lycoris_``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from lorax.adapter import Offset
from lorax.archs import kohya_name, kohya_names
from lorax.layers import LayerId, LayerKind
from lorax.structure import Arch

NAME: str = "kohya"
_PREFIXES = ("lora_unet_", "lora_te_", "lora_te1_", "lora_te2_", "lora_te3_", "lora_prior_", "lycoris_")
_RENAMED = {"oft_unet_": "lora_unet_", "oft_te_": "lora_te_", "oft_te1_": "lora_te1_", "oft_te2_": "lora_te2_"}


def split(key: str) -> tuple[str, str] | None:
    """(module name, leaf) of a tensor name, or None where the name is not of this dialect."""
    module, dot, leaf = key.partition(".")
    if not dot:
        return None
    for old, new in _RENAMED.items():
        if module.startswith(old):
            return new + module[len(old) :], leaf
    return (module, leaf) if module.startswith(_PREFIXES) else None


def names(arch: Arch) -> Mapping[str, LayerId]:
    """Every accepted module name."""
    return kohya_names(arch)


def scales(metadata: Mapping[str, str], modules: Mapping[str, int]) -> Mapping[str, float]:
    """Scales that the metadata gives: none, they are in the tensors."""
    return {}


def spelling(modules: Iterable[str], arch: Arch) -> str:
    """``onetrainer`` for SDXL files with diffusers paths, else ``kohya``."""
    diffusers = any(m.startswith(("lora_unet_down_blocks_", "lora_unet_mid_block_", "lora_unet_up_blocks_")) for m in modules)
    return "onetrainer" if diffusers and arch.kohya_unet == "single_file" else NAME


def tensors(factors: Mapping[LayerId, tuple[Tensor, Tensor, Tensor]], arch: Arch) -> dict[str, Tensor]:
    """(down, up, alpha) of each layer under the names that every loader takes."""
    out: dict[str, Tensor] = {}
    for layer, (down, up, alpha) in factors.items():
        name = kohya_name(arch, layer)
        out |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": alpha}
    return out


def offset_tensors(offsets: Mapping[LayerId, Offset], arch: Arch, dtype: torch.dtype) -> dict[str, Tensor]:
    """``w_norm`` and ``b_norm`` of a norm, always both, for hosts take them together; ``diff_b`` of any other layer."""
    out: dict[str, Tensor] = {}
    specs = arch.specs()
    for layer, offset in offsets.items():
        name, parts = kohya_name(arch, layer), (offset.weight, offset.bias)
        if specs[layer].kind == LayerKind.NORM:
            like = next(t for t in parts if t is not None)
            weight, bias = (torch.zeros_like(like) if t is None else t for t in parts)
            out |= {f"{name}.w_norm": weight.to(dtype), f"{name}.b_norm": bias.to(dtype)}
        elif offset.bias is not None:
            out[f"{name}.diff_b"] = offset.bias.to(dtype)
    return out
