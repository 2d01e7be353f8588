"""Do the shapes of a checkpoint's layers fit each other? Sizes that must be equal within a block have one name in these tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lorax.errors import MalformedCheckpoint
from lorax.layers import Layer, LayerKind

_SIDES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "transformer": {
        **dict.fromkeys(("norm1", "norm2", "norm3"), ("stream",)),
        **{f"attn1.{to}": ("self heads", "stream") for to in ("to_q", "to_k", "to_v")},
        "attn1.to_out.0": ("stream", "self heads"),
        "attn2.to_q": ("cross heads", "stream"),
        **{f"attn2.{to}": ("cross heads", "context") for to in ("to_k", "to_v")},
        "attn2.to_out.0": ("stream", "cross heads"),
        "ff.net.0.proj": ("two halves", "stream"),
        "ff.net.2": ("stream", "half"),
    },
    "attention": {"norm": ("outer",), "proj_in": ("inner", "outer"), "proj_out": ("outer", "inner")},
    "resnet": {
        "norm1": ("input",),
        "conv1": ("output", "input"),
        "time_emb_proj": ("output", "time"),
        "norm2": ("output",),
        "conv2": ("output", "output"),
        "conv_shortcut": ("output", "input"),
    },
    "text": {
        **dict.fromkeys(("layer_norm1", "layer_norm2"), ("stream",)),
        **{f"self_attn.{to}_proj": ("heads", "stream") for to in "qkv"},
        "self_attn.out_proj": ("stream", "heads"),
        "mlp.fc1": ("hidden", "stream"),
        "mlp.fc2": ("stream", "hidden"),
    },
}
"""Unit kind → role → names of the output and input size."""
_SHARED = ("context", "time")
"""Sizes that are equal in all blocks of a component; the others are equal within one block."""
_RANKS = {LayerKind.LINEAR: 2, LayerKind.CONV: 4, LayerKind.NORM: 1, LayerKind.EMBEDDING: 2}


def check_shapes(layers: Iterable[Layer]) -> None:
    """MalformedCheckpoint, naming the tensor, where a shape is not of its layer's kind or contradicts another one's.

    The message continues the sentence "FILE …".
    """
    sizes: dict[tuple[str, str], tuple[int, str]] = {}
    for layer in layers:
        rank = _RANKS[layer.spec.kind]
        if len(layer.shape) != rank or 0 in layer.shape:
            raise MalformedCheckpoint(
                f"has '{layer.tensor}' of shape {list(layer.shape)}, but a {layer.spec.kind} weight has {rank} sizes, none of them 0"
            )
        names = _SIDES.get(layer.spec.unit.kind, {}).get(layer.spec.role, ())
        for name, size in zip(names, layer.shape, strict=False):
            if name == "half":
                name, size = "two halves", 2 * size
            unit = str(layer.id.component if name in _SHARED else layer.spec.unit)
            first, tensor = sizes.setdefault((unit, name), (size, layer.tensor))
            if first != size:
                raise MalformedCheckpoint(
                    f"has '{layer.tensor}' {list(layer.shape)}, which contradicts '{tensor}': "
                    f"{size} against {first} ({name}); it is damaged or was merged wrongly"
                )
