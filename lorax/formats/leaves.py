"""From the tensors of one module to what they mean: the one place that knows the leaf names of every adapter kind.

Leaves are named as kohya and LyCORIS name them; a dialect with other names translates to these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from lorax.adapter import (
    AdapterModule,
    Decomposed,
    Dense,
    Generalized,
    Hadamard,
    Kronecker,
    LowRank,
    Offset,
    Rotation,
    Scaling,
    Spectral,
)
from lorax.errors import MalformedAdapter, nearest

Leaves = Mapping[str, Tensor]

UP, DOWN, MID = "lora_up.weight", "lora_down.weight", "lora_mid.weight"
SIGMA = "lorax_sigma"
MAGNITUDE = "dora_scale"
ROW_MAGNITUDE = "lora_magnitude_vector"
"""PEFT's DoRA: one number per output row, whatever its shape."""


@dataclass(frozen=True)
class Kind:
    """How one kind of module is stored."""

    needed: tuple[str, ...]
    optional: tuple[str, ...]
    build: Callable[[Leaves, Scales], AdapterModule]


@dataclass(frozen=True)
class Scales:
    """``alpha`` and ``scale`` of a module."""

    alpha: float | None
    override: float | None
    """A ``scale`` key stands for alpha / rank (A1111)."""
    rank_stabilised: bool = False
    """alpha / √rank (arXiv 2312.03732); PEFT says so in its configuration."""

    def over(self, rank: int | None) -> float:
        """What the product of the factors is multiplied with; 1 without alpha, or without a rank."""
        if self.override is not None:
            return self.override
        if self.alpha is None or rank is None:
            return 1.0
        return self.alpha / (math.sqrt(rank) if self.rank_stabilised else rank)


def _low_rank(t: Leaves, scales: Scales) -> AdapterModule:
    return LowRank(t[UP], t[DOWN], scales.over(t[DOWN].shape[0] or None), t.get(MID))


def _hadamard(t: Leaves, scales: Scales) -> AdapterModule:
    parts = (t["hada_w1_a"], t["hada_w1_b"], t["hada_w2_a"], t["hada_w2_b"])
    return Hadamard(*parts, scales.over(t["hada_w1_b"].shape[0] or None), t.get("hada_t1"), t.get("hada_t2"))


def _kronecker(t: Leaves, scales: Scales) -> AdapterModule:
    w1, w2 = _side(t, "lokr_w1"), _side(t, "lokr_w2")
    module = Kronecker(w1, w2, 1.0, t.get("lokr_t2"))
    return Kronecker(w1, w2, scales.over(module.rank), t.get("lokr_t2"))


def _side(t: Leaves, name: str) -> Tensor | tuple[Tensor, Tensor]:
    if name in t:
        return t[name]
    if f"{name}_a" not in t or f"{name}_b" not in t:
        raise MalformedAdapter(f"{name} is missing, whole or as {name}_a and {name}_b.")
    return t[f"{name}_a"], t[f"{name}_b"]


def _generalized(t: Leaves, scales: Scales) -> AdapterModule:
    a1, a2, b1, b2 = (t[f"{n}.weight"] for n in ("a1", "a2", "b1", "b2"))
    new = a1.shape[1] == b1.shape[1] == b2.shape[0]
    old = a1.shape[0] == b1.shape[0] == b2.shape[1] and a1.shape[1] == b1.shape[1]
    if old and (not new or a1.shape[0] < a1.shape[1]):
        a1, a2, b1, b2 = a2, a1, b2, b1  # LyCORIS' first files, and what A1111 expects: ΔW = b2 b1 + W a2 a1
    return Generalized(a1, a2, b1, b2, scales.over(a2.shape[0] or None), t.get("bm.weight"))


def _scaling(t: Leaves, scales: Scales) -> AdapterModule:
    return Scaling(t["weight"], bool(_scalar(t, "on_input")))


def _rotation(t: Leaves, scales: Scales) -> AdapterModule:
    if ("oft_blocks" in t) == ("oft_diag" in t):
        raise MalformedAdapter("a rotation has either oft_blocks or oft_diag.")
    if "oft_diag" in t:
        return Rotation(t["oft_diag"], 0.0, t.get("rescale"), direct=True)
    return Rotation(t["oft_blocks"], scales.alpha or 0.0, t.get("rescale"))


def _dense(t: Leaves, scales: Scales) -> AdapterModule:
    return Dense(t["diff"], 1.0 if scales.override is None else scales.override)


def _spectral(t: Leaves, scales: Scales) -> AdapterModule:
    return Spectral(t[SIGMA])


_LOKR = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
KINDS: tuple[Kind, ...] = (
    Kind((UP, DOWN), (MID, MAGNITUDE), _low_rank),
    Kind(("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"), ("hada_t1", "hada_t2", MAGNITUDE), _hadamard),
    Kind((), (*_LOKR, MAGNITUDE), _kronecker),
    Kind(("a1.weight", "a2.weight", "b1.weight", "b2.weight"), ("bm.weight",), _generalized),
    Kind(("weight", "on_input"), (), _scaling),
    Kind((), ("oft_blocks", "oft_diag", "rescale"), _rotation),
    Kind(("diff",), (), _dense),
    Kind((SIGMA,), (), _spectral),
)
OFFSETS: tuple[str, ...] = ("w_norm", "b_norm", "diff_b", "lora_up.bias")
SCALES: tuple[str, ...] = ("alpha", "scale")
KNOWN: frozenset[str] = frozenset([ROW_MAGNITUDE, *OFFSETS, *SCALES, *(leaf for kind in KINDS for leaf in (*kind.needed, *kind.optional))])
"""Every leaf name that means something to us."""
UNSUPPORTED: Mapping[str, str] = {
    "oft_R.weight": "a rotation of the input side (PEFT's and OneTrainer's OFT), which is not supported",
    "q_layer.weight": "a T-LoRA, whose rank depends on the timestep; it has no one delta",
    "p_layer.weight": "a T-LoRA, whose rank depends on the timestep; it has no one delta",
    "lambda_layer": "a T-LoRA, whose rank depends on the timestep; it has no one delta",
    "bias_indices": "a sparse difference of LyCORIS' extraction, which is not supported",
    "bias_values": "a sparse difference of LyCORIS' extraction, which is not supported",
    "bias_size": "a sparse difference of LyCORIS' extraction, which is not supported",
    "lora_embedding_A": "an adapter of an embedding, which is not supported",
    "lora_embedding_B": "an adapter of an embedding, which is not supported",
}
"""Leaf names that mean something to others, and what."""


def describe_leaf(leaf: str) -> str:
    """What a leaf is that is not of `KNOWN`."""
    return UNSUPPORTED.get(leaf) or f"unknown kind of tensor '{leaf}'.{nearest(leaf, KNOWN)}"


def build_module(leaves: Leaves, rank_stabilised: bool = False) -> tuple[AdapterModule | None, Offset | None]:
    """The module and the offset that known `leaves` make, either of them None.

    Raises MalformedAdapter where a part is missing, two kinds are mixed, or shapes disagree.
    """
    scales = Scales(_optional_scalar(leaves, "alpha"), _optional_scalar(leaves, "scale"), rank_stabilised)
    offset = _offset(leaves, scales)
    if ROW_MAGNITUDE in leaves:
        rows = leaves[ROW_MAGNITUDE].reshape(-1, 1)
        leaves = {**{leaf: t for leaf, t in leaves.items() if leaf != ROW_MAGNITUDE}, MAGNITUDE: rows}
    rest = leaves.keys() - set(OFFSETS) - set(SCALES)
    if rest == {"diff"} and leaves["diff"].ndim == 1:  # a norm, in files of kohya's full finetuning differences
        return None, Offset(leaves["diff"].float(), offset.bias if offset else None)
    if not rest:
        if offset is None:
            raise MalformedAdapter("it has a scale and nothing to scale.")
        return None, offset
    kinds = [kind for kind in KINDS if rest & {*kind.needed, *kind.optional} - {MAGNITUDE}]
    if len(kinds) != 1 or not rest <= {*kinds[0].needed, *kinds[0].optional}:
        raise MalformedAdapter(f"its tensors do not belong together: {', '.join(sorted(rest))}.")
    if missing := [leaf for leaf in kinds[0].needed if leaf not in leaves]:
        raise MalformedAdapter(f"it has {', '.join(sorted(rest))}, but no {', '.join(missing)}.")
    module = kinds[0].build(leaves, scales)
    return (Decomposed(module, leaves[MAGNITUDE]) if MAGNITUDE in leaves else module), offset


def _offset(leaves: Leaves, scales: Scales) -> Offset | None:
    weight, bias = leaves.get("w_norm"), leaves.get("b_norm", leaves.get("diff_b"))
    if "lora_up.bias" in leaves and DOWN in leaves:
        bias = leaves["lora_up.bias"].float() * scales.over(leaves[DOWN].shape[0] or None)
    if weight is None and bias is None:
        return None
    return Offset(None if weight is None else weight.float().flatten(), None if bias is None else bias.float().flatten())


def _optional_scalar(leaves: Leaves, name: str) -> float | None:
    return _scalar(leaves, name) if name in leaves else None


def _scalar(leaves: Leaves, name: str) -> float:
    if leaves[name].numel() != 1:
        raise MalformedAdapter(f"{name} is one number, not {list(leaves[name].shape)}.")
    return float(leaves[name])
