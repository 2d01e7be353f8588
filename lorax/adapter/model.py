"""The adapter as a whole, and what its file says about its base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lorax.adapter.base import AdapterModule, Offset
from lorax.layers import Component, LayerId
from lorax.structure import Arch

Fingerprint = tuple[float, float, float, float]
"""⟨ΔW, G_j⟩ for four fixed pseudo-random G_j."""


@dataclass(frozen=True)
class BaseHint:
    """What the file says about the base that the adapter was trained on; nothing of it is proof."""

    name: str | None = None
    """``ss_sd_model_name``, or ``lorax.base_name``"""
    sha256: str | None = None
    """Of the whole checkpoint file: ``ss_new_sd_model_hash``, or ``lorax.base_sha256``"""
    autov1: str | None = None
    """The old 8-hex hash of A1111: ``ss_sd_model_hash``"""
    digest: str | None = None
    """Of the base's weights: ``lorax.base_digest``"""

    def __str__(self) -> str:
        said = [self.name, self.sha256 and f"sha256 {self.sha256[:10]}…", self.autov1 and f"[{self.autov1}]"]
        return " ".join(s for s in said if s) or "an unnamed base"


@dataclass(frozen=True)
class Native:
    """What a LoRA-X file says of itself."""

    k: int
    """Rank of the bases that it was trained on."""
    diagonal: bool
    """ΔΣ is a diagonal σ, not a full k×k."""
    self_contained: bool
    """The file carries factors, so it is usable without its base."""
    fingerprints: Mapping[LayerId, Fingerprint]


@dataclass(frozen=True, eq=False)
class Adapter:
    """An adapter, read."""

    name: str
    """Stem of its file"""
    path: Path | None
    format: str
    """``kohya``, ``onetrainer``, ``peft``, ``diffusers`` or ``lorax``"""
    arch: Arch
    """The architecture whose names were used to read it."""
    modules: Mapping[LayerId, AdapterModule]
    offsets: Mapping[LayerId, Offset] = field(default_factory=dict[LayerId, Offset])
    unmatched: tuple[tuple[str, str], ...] = ()
    """Keys that were not placed, each with its reason."""
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    native: Native | None = None
    base: BaseHint = field(default_factory=BaseHint)

    @property
    def family(self) -> str:
        return self.arch.family

    @property
    def needs_base(self) -> bool:
        """Some module is a delta only with the source's weights."""
        return any(m.needs_base for m in self.modules.values())

    @property
    def retargeted(self) -> bool:
        """The file says that it was made by a transfer of ours, or distilled."""
        return self.metadata.get("lorax.action") in ("transfer", "distill")

    @property
    def components(self) -> tuple[Component, ...]:
        """The networks that it touches, in the order of `Component`."""
        touched = {layer.component for layer in (*self.modules, *self.offsets)}
        return tuple(c for c in Component if c in touched)
