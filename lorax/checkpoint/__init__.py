"""Base models, opened from their files: layers by name, weights read lazily."""

from __future__ import annotations

from lorax.checkpoint.model import About, BaseHashes, Checkpoint
from lorax.checkpoint.open import open_checkpoint

__all__ = ["About", "BaseHashes", "Checkpoint", "open_checkpoint"]
