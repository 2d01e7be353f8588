"""WebUIs whose built-in patches models through ``networks.load_lora_for_models``: Forge and its relatives."""

from __future__ import annotations

from lorax.hosts.forge.host import Forge, start
from lorax.hosts.forge.script import script_of

__all__ = ["Forge", "script_of", "start"]
