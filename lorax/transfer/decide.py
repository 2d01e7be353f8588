"""What becomes of one layer: left out by the user's filters, skipped with a reason, copied, projected or aligned."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase

from lorax.adapter import Adapter, AdapterModule
from lorax.checkpoint import Checkpoint
from lorax.layers import LayerId
from lorax.structure.names import kohya_name
from lorax.transfer.align import Alignment
from lorax.transfer.types import (
    DEFAULT_K,
    DEFAULT_MIN_SIMILARITY,
    LayerDecision,
    LayerMatch,
    LayerScore,
    TransferSettings,
)


def filtered(layer: LayerId, adapter: Adapter, settings: TransferSettings) -> str:
    """Why the user's filters leave this layer out, or an empty string."""
    names = str(layer), kohya_name(adapter.arch, layer)
    if settings.components is not None and layer.component not in settings.components:
        return f"left out: component {layer.component}"
    if settings.only and not any(selects(p, n) for p in settings.only for n in names):
        return "left out by --only"
    if any(selects(p, n) for p in settings.skip for n in names):
        return "left out by --skip"
    return ""


def selects(pattern: str, name: str) -> bool:
    """`fnmatch`, or a plain substring where the pattern has no wildcard."""
    return fnmatchcase(name, pattern) if any(c in pattern for c in "*?[") else pattern in name


@dataclass(frozen=True)
class Decider:
    """What to do with one matched layer."""

    adapter: Adapter
    source: Checkpoint | None
    target: Checkpoint
    settings: TransferSettings
    alignment: Alignment | None = None

    def match(self, match: LayerMatch, score: LayerScore) -> LayerDecision:
        module, layer = self.adapter.modules[match.source], self.target.layers[match.target]
        shape = self.source.layers[match.source].shape if self.source else None

        def skip(reason: str) -> LayerDecision:
            return LayerDecision(match.source, match.target, "skip", reason, score=score)

        if self.source is None and module.needs_base:
            return skip(f"a {module.kind} module needs its source base: give it with --source")
        gate = self.gate()
        if gate is not None and not score.same_weights and score.similarity is not None and score.similarity < gate:
            return skip(f"similarity above chance is under the gate of {gate:.2f}")
        if self.alignment is not None:
            return self.align(match, score) if self.alignment.covers(match.target) else skip("its channels have no map")
        if shape not in (None, layer.shape) or not module.fits(layer.shape):
            return skip(
                f"shapes disagree: {shape or module.shape} in the source, {layer.shape} in the target; different widths need alignment"
            )
        return self.carry(match, module, layer.shape, score)

    def align(self, match: LayerMatch, score: LayerScore) -> LayerDecision:
        """By the channels' maps, which change nothing where the channels are the same."""
        if self.alignment is None or not self.alignment.changes(match.target):
            reason = "same weights in both bases" if score.same_weights else "same channels in both bases"
            return LayerDecision(match.source, match.target, "copy", reason, score=score)
        return LayerDecision(match.source, match.target, "align", "carried to the channels that match its own", score=score)

    def carry(self, match: LayerMatch, module: AdapterModule, shape: tuple[int, ...], score: LayerScore) -> LayerDecision:
        native = self.adapter.native
        if score.same_weights:
            return LayerDecision(match.source, match.target, "copy", "same weights in both bases", score=score)
        if self.settings.method == "copy" or (self.settings.method == "auto" and native is None):
            reason = "asked for" if self.settings.method == "copy" else "an ordinary adapter between relatives is copied"
            return LayerDecision(match.source, match.target, "copy", reason, score=score)
        k = self.settings.k or (native.k if native else DEFAULT_K)
        sides = shape[0], math.prod(shape[1:])
        whole = " (the whole space: the same as a copy)" if k >= max(sides) else ""
        return LayerDecision(match.source, match.target, "project", f"projected at k={min(k, *sides)}{whole}", k, score)

    def gate(self) -> float | None:
        """The gate in force; copying by name is the plain control, and forcing means to see what comes."""
        if self.settings.min_similarity is not None:
            return self.settings.min_similarity
        return None if self.settings.method == "copy" or self.settings.force or self.alignment else DEFAULT_MIN_SIMILARITY
