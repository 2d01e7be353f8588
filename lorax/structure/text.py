"""The layers of a CLIP or OpenCLIP text encoder, named as in transformers and as in the single-file layouts.

OpenCLIP's text projection is left out: it is stored transposed in one layout, and no adapter format touches it.
"""

from __future__ import annotations

from collections.abc import Iterator

from lorax.layers import Component, LayerId, LayerKind, LayerSpec, Stored, Unit
from lorax.structure.blocks import TextStructure

_LAYER = (
    ("layer_norm1", "ln_1", LayerKind.NORM),
    ("self_attn.q_proj", "attn", LayerKind.LINEAR),
    ("self_attn.k_proj", "attn", LayerKind.LINEAR),
    ("self_attn.v_proj", "attn", LayerKind.LINEAR),
    ("self_attn.out_proj", "attn.out_proj", LayerKind.LINEAR),
    ("layer_norm2", "ln_2", LayerKind.NORM),
    ("mlp.fc1", "mlp.c_fc", LayerKind.LINEAR),
    ("mlp.fc2", "mlp.c_proj", LayerKind.LINEAR),
)
_FUSED = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_FIXED = (
    ("text_model.embeddings.token_embedding", Stored("token_embedding"), LayerKind.EMBEDDING),
    ("text_model.embeddings.position_embedding", Stored("positional_embedding", suffix=""), LayerKind.EMBEDDING),
    ("text_model.final_layer_norm", Stored("ln_final"), LayerKind.NORM),
)


def text_layers(component: Component, structure: TextStructure) -> Iterator[LayerSpec]:
    """Every layer of the text encoder that has a weight, in order of execution (its fixed layers first)."""
    fixed = Unit(component, "", "fixed", "fixed", 0)
    for path, openclip, kind in _FIXED:
        stored = openclip if structure.kind == "openclip" else Stored(path)
        yield LayerSpec(LayerId(component, path), kind, fixed, path, stored, Stored(path))
    for i in range(structure.layers):
        unit = Unit(component, f"text_model.encoder.layers.{i}", "text", "text", i + 1)
        for role, openclip, kind in _LAYER:
            path = f"{unit.path}.{role}"
            stored = _openclip(f"transformer.resblocks.{i}.{openclip}", role) if structure.kind == "openclip" else Stored(path)
            yield LayerSpec(LayerId(component, path), kind, unit, role, stored, Stored(path))


def _openclip(module: str, role: str) -> Stored:
    if role in _FUSED:
        return Stored(module, _FUSED.index(role), len(_FUSED), ".in_proj_weight")
    return Stored(module)
