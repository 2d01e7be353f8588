"""What a file is that holds no base model of ours: said by name, so that the refusal helps."""

from __future__ import annotations

from collections.abc import Iterable

from lorax.structure import UNetStructure
from lorax.structure.blocks import down_stage, up_stage

SDXL_REFINER = UNetStructure(
    down=(
        down_stage(0, 0),
        down_stage(4, 4, widens=True),
        down_stage(4, 4, widens=True),
        down_stage(0, 0, sampler=False),
    ),
    mid_resnets=2,
    mid_depth=4,
    up=(up_stage(0, 0, 0), up_stage(4, 4, 4), up_stage(4, 4, 4), up_stage(0, 0, 0, sampler=False)),
    linear_projection=True,
    added_embedding=True,
)

_ADAPTER = ("lora_down", "lora_up", "lora_A", "lora_B", "lora.down", "lora.up", "lora_linear_layer", "hada_w", "lokr_w", "oft_", "on_input")
_MARKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("an adapter (LoRA or LyCORIS), not a checkpoint", (*_ADAPTER, ".dora_scale", ".w_norm")),
    ("an IP-Adapter", ("ip_adapter.", "image_proj.")),
    ("a ControlNet", ("control_model.", "input_hint_block", "controlnet_cond_embedding", "zero_convs")),
    ("Stable Video Diffusion", ("time_stack.", "temporal_transformer_blocks")),
    ("an AnimateDiff motion module", ("motion_modules.",)),
    ("Chroma", ("distilled_guidance_layer.",)),
    ("Flux", ("double_blocks.", "single_transformer_blocks.")),
    ("Stable Diffusion 3", ("joint_blocks.", ".attn.add_k_proj", "context_block.")),
    ("AuraFlow", ("double_layers.", "joint_transformer_blocks.")),
    ("Stable Cascade", ("clip_txt_mapper", "clf.1.weight", "effnet_mapper")),
    ("Lumina or Z-Image", ("context_refiner.", "cap_embedder.")),
    ("PixArt", ("scale_shift_table", "y_embedder.y_embedding")),
    ("a T5 text encoder", ("SelfAttention.q.weight", "enc.blk.0.")),
    ("a textual-inversion embedding", ("emb_params", "string_to_param")),
    ("a VAE", ("decoder.mid.block_1.", "decoder.mid_block.resnets", "first_stage_model.")),
)
"""What it is, and parts of tensor names that give it away; the first that fits is said."""


def foreign(names: Iterable[str]) -> str | None:
    """What a file with these tensor names is, in words, or None where it is not obvious."""
    known = set(names)
    text = "\n".join(known)
    for title, marks in _MARKS:
        if any(mark in text for mark in marks):
            return title
    if known and known <= {"clip_l", "clip_g"}:
        return "a textual-inversion embedding"
    return None
