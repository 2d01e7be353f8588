"""The values that a transfer passes on: settings, matches, scores, decisions, plan, results, report.

Three ranks never share a name (METHOD: "three ranks"): ``k`` is the rank of a spectral basis, ``k_sim`` the rank at which
similarity is taken, ``rank`` of a written adapter is ``r``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import Tensor

from lorax.layers import Component, LayerId
from lorax.linalg import Factors

Method = Literal["auto", "align", "project", "copy"]
Action = Literal["align", "project", "copy", "skip"]
Verdict = Literal["same base", "should work", "weak", "unchecked", "not transferable"]

DEFAULT_K = 320
"""The paper's basis: the 320 largest singular directions."""
DEFAULT_OUT_RANK = 64
"""Largest rank written for a delta that comes without factors of its own."""
DEFAULT_OUT_ENERGY = 0.99
"""Share of the energy at which a delta without factors of its own is cut, within `DEFAULT_OUT_RANK`."""
DEFAULT_MIN_SIMILARITY = 0.5
"""Gate on similarity above chance, midway between chance and identity: a safety net, not a tuner."""
MIN_COSINE = 0.5
"""Bases whose matched weights have a lower mean cosine are called unrelated."""


@dataclass(frozen=True)
class TransferSettings:
    """What the user can choose."""

    method: Method = "auto"
    k: int | None = None
    """Rank of the target's basis; None: the native adapter's own k, else `DEFAULT_K`."""
    out_rank: int | None = None
    """Largest rank r of the written LoRA; None: an ordinary LoRA keeps its own, the rest gets `DEFAULT_OUT_RANK`."""
    out_energy: float | None = None
    """Share of the energy to keep when choosing r; None: `DEFAULT_OUT_ENERGY` where there is no rank to keep."""
    min_similarity: float | None = None
    """Gate on Φ̂; None: `DEFAULT_MIN_SIMILARITY` where nothing is aligned, but none for ``copy`` asked for by name, the plain control."""
    only: tuple[str, ...] = ()
    """Patterns of layers to take (`fnmatch` on the canonical name; a pattern without wildcards matches anywhere)."""
    skip: tuple[str, ...] = ()
    """Patterns of layers to leave out."""
    components: tuple[Component, ...] | None = None
    """Components to take; None: all."""
    strength: float = 1.0
    force: bool = False
    """Go on where the verdict is "not transferable" or the adapter was already transferred."""
    device: str = "auto"
    """Where the tensors are computed, as `resolve_device` takes it."""


@dataclass(frozen=True)
class UnitMatch:
    """One block of the target and the source block that it corresponds to."""

    target: str
    """Path of the target's block with its component, e.g. ``unet.down_blocks.1.attentions.0.transformer_blocks.0``."""
    source: str | None
    """The source's block, or None where the target's block has no counterpart."""
    cosine: float | None
    """Mean cosine of the two blocks' weights; None where it was matched by name and not measured."""


@dataclass(frozen=True)
class LayerMatch:
    """A target layer and the source layer that it takes its delta from."""

    target: LayerId
    source: LayerId


@dataclass(frozen=True)
class LayerScore:
    """How alike the two weights of a match are (Eq. 4 with its chance level)."""

    similarity_left: float | None
    """Φ̂ of the output subspaces, above chance: 0 is chance, 1 identical. None where nothing can be measured."""
    similarity_right: float | None
    """Φ̂ of the input subspaces."""
    chance_left: float | None
    """k_sim / out: what two unrelated subspaces score in Φ before the correction."""
    chance_right: float | None
    """k_sim / in"""
    cosine: float | None
    """ρ: cosine of the two weights, the source's in the target's channels where they were aligned."""
    same_weights: bool
    """The two weights are equal to the precision of the coarser file."""
    chance_cosine: float = 0.0
    """ρ₀: what the alignment's fit would reach on unrelated weights; 0 where nothing was fitted."""

    @property
    def relation(self) -> float | None:
        """ρ̂ = (ρ − ρ₀) / (1 − ρ₀): 0 for unrelated weights, 1 for equal ones."""
        if self.cosine is None:
            return None
        return (self.cosine - self.chance_cosine) / (1.0 - self.chance_cosine) if self.chance_cosine < 1.0 else 0.0

    @property
    def similarity(self) -> float | None:
        """The smaller side, which the gate looks at."""
        sides = [s for s in (self.similarity_left, self.similarity_right) if s is not None]
        return min(sides) if sides else None


UNSCORED = LayerScore(None, None, None, None, None, False)


@dataclass(frozen=True)
class LayerDecision:
    """What will be done with one layer, and why."""

    source: LayerId | None
    """Layer of the adapter; None for a target layer that gets nothing."""
    target: LayerId | None
    """Layer of the target; None where the target has no place for the adapter's layer."""
    action: Action
    reason: str
    k: int | None = None
    """Basis rank of a projection."""
    score: LayerScore = UNSCORED


@dataclass(frozen=True)
class Atc:
    """Adapter transferability cost (lower is easier), target-uniform and balanced."""

    left: float
    right: float
    balanced_left: float
    balanced_right: float


class ChannelMaps(Protocol):
    """The maps of all channels from one base to another, as an alignment finds them."""

    @property
    def identity(self) -> bool:
        """Whether nothing changes."""
        ...

    def carry(self, target: LayerId, delta: Factors | Tensor) -> Factors | Tensor:
        """A delta of the source in the channels of the layer `target`."""
        ...


@dataclass(frozen=True)
class TransferPlan:
    """All that is decided, before a delta is touched: printable, testable, refusable."""

    settings: TransferSettings
    method: str
    """What `auto` resolved to, in words: ``align``, ``project``, ``copy`` or ``mixed``."""
    method_reason: str
    verdict: Verdict
    verdict_reason: str
    family: str
    source_name: str | None
    target_name: str
    adapter_name: str
    decisions: tuple[LayerDecision, ...]
    units: tuple[UnitMatch, ...] = ()
    """The block map; empty where the two architectures are the same and blocks are taken by name."""
    cosine: float | None = None
    """ρ̂ of the model: mean over the matched layers."""
    atc: Atc | None = None
    notes: tuple[str, ...] = ()
    """One-line facts that the user should know."""
    alignment: ChannelMaps | None = field(default=None, compare=False, repr=False)
    """The maps of the channels, where a decision is to align."""

    @property
    def modules_in(self) -> int:
        """Modules of the adapter that the plan speaks of."""
        return len({d.source for d in self.decisions if d.source is not None})

    @property
    def placed(self) -> tuple[LayerDecision, ...]:
        return tuple(d for d in self.decisions if d.action != "skip")


@dataclass(frozen=True)
class LayerResult:
    """A decision and what came of it."""

    decision: LayerDecision
    energy_in: float
    """‖ΔW_s‖²_F"""
    energy_out: float
    """‖ΔW_t‖²_F as written, before `strength`"""
    rank: int
    """r as written; 0 for a skipped layer."""

    @property
    def energy_kept(self) -> float | None:
        return self.energy_out / self.energy_in if self.energy_in else None


@dataclass(frozen=True)
class TransferReport:
    """The plan, and what its run gave."""

    plan: TransferPlan
    results: tuple[LayerResult, ...]
    unmatched: tuple[tuple[str, str], ...]
    """Keys of the adapter file that were not placed, each with its reason."""
    seconds: float
    output: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def modules_in(self) -> int:
        return self.plan.modules_in

    @property
    def modules_out(self) -> int:
        return sum(r.decision.action != "skip" and r.rank > 0 for r in self.results)

    @property
    def energy_kept(self) -> float | None:
        """Σ‖ΔW_t‖² / Σ‖ΔW_s‖² over all modules of the adapter, skipped ones counted as lost."""
        total = sum(r.energy_in for r in self.results)
        return sum(r.energy_out for r in self.results) / total if total else None


Progress = Callable[[str, int, int], None]
"""``progress(text, done, total)``; it may raise `lorax.errors.Cancelled` to stop the work."""


def no_progress(text: str, done: int, total: int) -> None:
    """The silent `Progress`."""
