"""What a file or a tensor is that is no adapter of ours: said by name, so that nobody has to guess."""

from __future__ import annotations

from collections.abc import Iterable

_KEYS: tuple[tuple[str, str], ...] = (
    ("bundle_emb.", "a textual inversion embedding bundled with the adapter: a prompt word, not a layer; save it as a file of its own"),
    ("lora_te3_", "a module for SD3's third text encoder"),
)
_FILES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("model.diffusion_model.", "cond_stage_model.", "conditioner.", "first_stage_model."), "this is a base checkpoint"),
    (("control_model.", "controlnet_", "control_lora", "input_hint_block", "lllite_unet"), "this is a ControlNet"),
    (("down_blocks.", "up_blocks.", "mid_block.", "input_blocks.", "time_embed"), "this is a base model's UNet"),
    (
        ("double_blocks.", "single_blocks.", "joint_blocks.", "model.diffusion_model.double_blocks"),
        "this is a base model of another family",
    ),
    (("text_model.", "transformer.text_model.", "encoder.layers."), "this is a text encoder"),
    (("encoder.down", "decoder.up", "quant_conv"), "this is a VAE"),
    (("emb_params", "string_to_param", "clip_l", "clip_g", "<"), "this is a textual inversion embedding"),
    (("image_proj.", "ip_adapter."), "this is an IP-Adapter"),
)
_FAMILIES: tuple[tuple[str, str], ...] = (
    ("double_blocks", "Flux"),
    ("single_blocks", "Flux"),
    ("single_transformer_blocks", "Flux"),
    ("joint_blocks", "SD3"),
    ("lora_te3_", "SD3"),
    ("text_encoder_3", "SD3"),
    ("lora_prior_", "Stable Cascade"),
    ("transformer.transformer_blocks", "SD3 or Flux"),
    ("lora_transformer_", "SD3 or Flux"),
)


def describe_key(key: str, dialect: str) -> str:
    """Why a single tensor belongs to no module of a file in `dialect`."""
    known = next((what for prefix, what in _KEYS if key.startswith(prefix)), None)
    return known or f"not named as {dialect} files name their tensors"


def describe_file(keys: Iterable[str]) -> str:
    """What a file is, by the names of its tensors."""
    names = sorted(keys)
    for prefixes, what in _FILES:
        if any(name.startswith(prefixes) for name in names):
            return f"{what} (it has '{next(n for n in names if n.startswith(prefixes))}')"
    return f"its first tensor is called '{names[0]}'"


def foreign_family(modules: Iterable[str]) -> str:
    """``it is an adapter for …`` where the module names give away another family, else an empty string."""
    for module in modules:
        for word, family in _FAMILIES:
            if word in module:
                return f"'{module}' is a layer of {family}, which is not supported yet."
    return ""
