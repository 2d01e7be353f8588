"""Made-up plans and reports of real size: genuine layer names, invented numbers."""

from __future__ import annotations

import math
import random

from lorax.archs import by_name
from lorax.layers import Component, LayerKind, LayerSpec
from lorax.transfer.types import (
    Atc,
    LayerDecision,
    LayerResult,
    LayerScore,
    TransferPlan,
    TransferReport,
    TransferSettings,
    UnitMatch,
)

NASTY = '<script>alert("x")</script>&"\'`|*_\x1b[31m'
"""What somebody might put into a file's metadata or name."""

KEPT_OF_TEN = (0, 1, 2, 6)


def adapted(arch: str, conv: bool = False) -> list[LayerSpec]:
    """The layers that an ordinary adapter touches."""
    kinds = (LayerKind.LINEAR, LayerKind.CONV) if conv else (LayerKind.LINEAR,)
    specs = by_name(arch).layers()
    wanted = ("transformer", "text", "attention") + (("resnet", "sampler") if conv else ())
    return [s for s in specs if s.kind in kinds and s.unit.kind in wanted]


def score(at: float, seed: int) -> LayerScore:
    rng = random.Random(seed)
    left, right = (max(-0.02, min(1.0, at + rng.gauss(0, 0.06))) for _ in range(2))
    return LayerScore(left, right, 0.05, 0.05, max(0.0, left * 0.9), False)


def report(source: str = "sd1", target: str = "sd1", method: str = "copy", conv: bool = False, name: str = "ink-wash") -> TransferReport:
    """A transfer between two architectures of one family."""
    specs, places = adapted(source, conv), [s.id for s in adapted(target, conv)]
    units, moved = block_map(source, target)
    results = []
    for i, spec in enumerate(specs):
        path = str(spec.unit)
        to = spec.id
        if units and spec.id.component == Component.UNET:
            at = moved.get(path)
            to = next((p for p in places if at and str(p) == f"{at}.{spec.role}"), None)
        results.append(one(spec, to, method, i))
    plan = TransferPlan(
        settings=TransferSettings(method="auto", k=320 if method == "project" else None),
        method="mixed" if method == "project" else method,
        method_reason="auto: an ordinary LoRA between close relatives needs no fit, and a copy keeps all of it"
        if method == "copy"
        else "the adapter is a native LoRA-X file and is projected at its own k = 320",
        verdict="should work" if source == target else "weak",
        verdict_reason="mean cosine of the matched weights is 0.93, far above chance",
        family=by_name(source).family,
        source_name="base-v1-5",
        target_name="dreamy-v8" if source == target else f"{target}-a1111",
        adapter_name=name,
        decisions=tuple(r.decision for r in results),
        units=units,
        cosine=0.932,
        atc=Atc(0.041, 0.057, 0.31, 0.33),
        notes=("text encoder 1 is the same in both bases, so its part is carried over exactly",),
    )
    unmatched = (("lora_unet_something_else.lora_down.weight", "no layer of this name in the base"),)
    return TransferReport(plan, tuple(results), unmatched, 12.34, f"{name}-dreamy-v8.safetensors", {"adapter sha256": "9f" * 32})


def one(spec: LayerSpec, to, method: str, seed: int) -> LayerResult:
    depth = spec.unit.index
    alike = score(0.93 - 0.3 * abs(math.sin(depth / 9)), seed)
    energy = 1.0 + seed % 7
    if to is None:
        decision = LayerDecision(spec.id, None, "skip", "its block has no counterpart in the target")
    elif spec.id.component != Component.UNET:
        decision = LayerDecision(spec.id, to, "copy", "same weights in both bases", score=LayerScore(1.0, 1.0, 0.04, 0.04, 1.0, True))
    elif alike.similarity is not None and alike.similarity < 0.56:
        decision = LayerDecision(spec.id, to, "skip", "similarity is under the gate of 0.50", score=alike)
    else:
        decision = LayerDecision(spec.id, to, method, "close relatives" if method == "copy" else "native, at k = 320", score=alike)
    kept = 0.0 if decision.action == "skip" else 1.0 if decision.action == "copy" else 0.62 + 0.37 * random.Random(seed).random()
    return LayerResult(decision, energy, energy * kept, 0 if decision.action == "skip" else 32)


def block_map(source: str, target: str) -> tuple[tuple[UnitMatch, ...], dict[str, str]]:
    """The block map by unit, and where each source unit went."""
    if source == target:
        return (), {}
    theirs, ours = units_of(source), units_of(target)
    matches, moved = [], {}
    for head in dict.fromkeys(_head(u) for u in ours):
        mine = [u for u in ours if _head(u) == head]
        others = [u for u in theirs if _head(u) == head]
        picks = others[: len(mine)]
        if len(others) == 10 and len(mine) == 4:
            picks = [others[i] for i in KEPT_OF_TEN]
        for i, unit in enumerate(mine):
            found = picks[i] if i < len(picks) else None
            matches.append(UnitMatch(unit, found, None if found is None else 0.9 + 0.01 * (i % 9)))
            if found:
                moved[found] = unit
    return tuple(matches), moved


def units_of(arch: str) -> list[str]:
    specs = [s for s in adapted(arch, conv=True) if s.id.component == Component.UNET]
    return list(dict.fromkeys(str(s.unit) for s in sorted(specs, key=lambda s: s.unit.index)))


def _head(unit: str) -> str:
    head, _, last = unit.rpartition(".")
    return head if "transformer_blocks" in unit else f"{head}.{last}"
