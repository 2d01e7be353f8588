"""Plans and reports as plain values for ``json.dumps``: exact field names, no NaN, no tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from lorax.transfer.types import Atc, LayerDecision, LayerResult, LayerScore, TransferPlan, TransferReport, UnitMatch


def to_json(report: TransferReport) -> dict[str, Any]:
    """A transfer's outcome; the fields are part of the command line's contract and only ever added to."""
    document = _document(report.plan)
    document.update(
        output=report.output,
        modules_out=report.modules_out,
        unmatched=unmatched_rows(report.unmatched),
        energy_kept=finite(report.energy_kept),
        seconds=finite(round(report.seconds, 3)),
        layers=[_layer(r.decision, r) for r in report.results],
        extra=dict(report.extra),
    )
    return document


def plan_to_json(plan: TransferPlan, unmatched: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
    """A plan in the shape of a report, with null for what only a run can tell."""
    document = _document(plan)
    document.update(unmatched=unmatched_rows(unmatched), layers=[_layer(d, None) for d in plan.decisions])
    return document


def finite(value: float | None) -> float | None:
    """The number, or None where JSON has no word for it."""
    return value if value is not None and math.isfinite(value) else None


def unmatched_rows(unmatched: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    """Keys that were not placed, each with its reason."""
    return [{"key": key, "reason": reason} for key, reason in unmatched]


def _document(plan: TransferPlan) -> dict[str, Any]:
    atc = plan.atc
    return {
        "method": plan.method,
        "method_reason": plan.method_reason,
        "verdict": plan.verdict,
        "verdict_reason": plan.verdict_reason,
        "family": plan.family,
        "adapter": plan.adapter_name,
        "source": plan.source_name,
        "target": plan.target_name,
        "output": None,
        "modules_in": plan.modules_in,
        "modules_placed": len(plan.placed),
        "modules_out": None,
        "unmatched": [],
        "energy_kept": None,
        "cosine": finite(plan.cosine),
        **atc_fields(atc),
        "seconds": None,
        "layers": [],
        "blocks": block_rows(plan.units),
        "settings": _settings(plan),
        "notes": list(plan.notes),
    }


def block_rows(units: Sequence[UnitMatch]) -> list[dict[str, Any]]:
    """The block map."""
    return [{"target": u.target, "source": u.source, "cosine": finite(u.cosine)} for u in units]


def atc_fields(atc: Atc | None) -> dict[str, float | None]:
    """The transferability cost, both forms and both sides."""
    return {
        "atc_left": finite(atc.left) if atc else None,
        "atc_right": finite(atc.right) if atc else None,
        "atc_balanced_left": finite(atc.balanced_left) if atc else None,
        "atc_balanced_right": finite(atc.balanced_right) if atc else None,
    }


def _settings(plan: TransferPlan) -> dict[str, Any]:
    values = asdict(plan.settings)
    components = plan.settings.components
    values["components"] = None if components is None else [str(c) for c in components]
    values["only"], values["skip"] = list(plan.settings.only), list(plan.settings.skip)
    return values


def _layer(decision: LayerDecision, result: LayerResult | None) -> dict[str, Any]:
    return {
        "source": str(decision.source) if decision.source else None,
        "target": str(decision.target) if decision.target else None,
        "action": decision.action,
        "reason": decision.reason,
        **score_fields(decision.score),
        "energy_kept": finite(result.energy_kept) if result else None,
        "rank": result.rank if result else None,
        "k": decision.k,
    }


def score_fields(score: LayerScore) -> dict[str, Any]:
    """How alike two weights are."""
    return {
        "similarity_left": finite(score.similarity_left),
        "similarity_right": finite(score.similarity_right),
        "chance_left": finite(score.chance_left),
        "chance_right": finite(score.chance_right),
        "cosine": finite(score.cosine),
        "chance_cosine": finite(score.chance_cosine),
        "same_weights": score.same_weights,
    }
