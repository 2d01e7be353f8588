"""What is this WebUI's own beside `lorax.hosts.base.webui`; its modules are imported where they are used."""

# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

from lorax.hosts.base import KnownBase
from lorax.hosts.base.webui import known, option


def active_model() -> Any | None:
    """The model whose weights are in use; asking for it loads none."""
    from modules import sd_models

    return sd_models.model_data.sd_model


def base_of(model: Any | None) -> KnownBase | None:
    """The checkpoint file behind a model."""
    info = getattr(model, "sd_checkpoint_info", None)
    return None if info is None else known(info)


def is_empty_prompt(p: Any) -> bool:
    """`sd_models.get_empty_cond` asks for the networks of no picture, while a checkpoint is being loaded."""
    return getattr(p, "scripts", None) is None and getattr(p, "prompts", None) is None


def fp8_keeps_last_only() -> bool:
    """An upstream bug: with fp8 and the fp16 cache each network starts from the cached weight again."""
    return option("fp8_storage") not in (None, "Disable") and bool(option("cache_fp16_weight"))
