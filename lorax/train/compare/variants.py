"""What is put on the target in each column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from lorax.actions import cached_bases
from lorax.adapter import Adapter
from lorax.checkpoint import Checkpoint
from lorax.errors import LoraxError
from lorax.formats import read_adapter
from lorax.layers import LayerId
from lorax.linalg import Factors
from lorax.train.compare.settings import CompareSettings
from lorax.train.distill import distill
from lorax.transfer.plan import plan_transfer
from lorax.transfer.run import run_plan
from lorax.transfer.types import Method, Progress, TransferSettings


@dataclass(frozen=True, eq=False)
class Variant:
    """One column: an adapter on the target, or the reason why there is none."""

    method: str
    words: str
    """What was done, or what stood against it"""
    verdict: str
    """By the weights; empty where they were not asked"""
    deltas: Mapping[LayerId, Factors] | None
    """None where it could not be made"""


def make_variants(
    adapter: Adapter, source: Checkpoint, target: Checkpoint, settings: CompareSettings, distilled: Path, progress: Progress
) -> list[Variant]:
    """All columns, each by its own. distilled: where the training of ``distill`` writes."""
    found: list[Variant] = []
    for method in settings.methods:
        try:
            if method == "none":
                found.append(Variant("none", "the target as it is", "", {}))
            elif method == "distill":
                found.append(_distilled(adapter, source, target, settings, distilled, progress))
            else:
                found.append(_carried(cast("Method", method), adapter, source, target, settings, progress))
        except LoraxError as error:
            found.append(Variant(method, str(error), "not made", None))
    return found


def _carried(
    method: Method, adapter: Adapter, source: Checkpoint, target: Checkpoint, settings: CompareSettings, progress: Progress
) -> Variant:
    """By weights alone; forced, because a comparison is there to show what comes of it."""
    plan = plan_transfer(adapter, source, target, TransferSettings(method=method, force=True, device=settings.device), progress=progress)
    done = run_plan(plan, adapter, source, target, cached_bases(), progress)
    return Variant(method, f"{plan.method}: {plan.method_reason}", plan.verdict, done.modules)


def _distilled(
    adapter: Adapter, source: Checkpoint, target: Checkpoint, settings: CompareSettings, output: Path, progress: Progress
) -> Variant:
    path, words = settings.distilled, "distilled before"
    if path is None:
        assert adapter.path is not None
        told = replace(
            settings.distill,
            source_config=settings.source_config,
            target_config=settings.target_config,
            device=settings.device,
            precision=settings.precision,
            overwrite=settings.overwrite,
            force=True,
        )
        report = distill(adapter.path, source.paths[0], target.paths[0], output, told, progress)
        path, words = output, f"{report.steps} training steps, written as '{output.name}'"
    read = read_adapter(path, target.arch)
    deltas = {i: f for i, module in read.modules.items() if (f := module.factors()) is not None}
    if len(deltas) != len(read.modules):
        raise LoraxError(f"'{path.name}' is no plain LoRA: give a file that was distilled")
    return Variant("distill", words, "", deltas)
