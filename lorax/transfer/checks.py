"""What must hold before a transfer is planned, and before a plan is run: each check raises one error that says what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lorax.adapter import Adapter
from lorax.checkpoint import Checkpoint
from lorax.errors import BaseMismatch, MalformedAdapter, NotTransferable, SourceNeeded
from lorax.layers import Component, LayerId, LayerSpec
from lorax.transfer.types import TransferPlan, TransferSettings


def check_families(adapter: Adapter, source: Checkpoint | None, target: Checkpoint) -> None:
    if source is not None and source.arch.family != adapter.family:
        raise BaseMismatch(
            f"the adapter '{adapter.name}' is for {adapter.family}, but the source '{source.name}' is {source.arch.family} "
            f"({source.arch.title}): give the base that it was trained on"
        )
    if target.arch.family != adapter.family:
        raise NotTransferable(
            f"the adapter '{adapter.name}' is for {adapter.family}, but the target '{target.name}' is {target.arch.family} "
            f"({target.arch.title}): their layers have nothing in common, so choose a target of the family {adapter.family}"
        )


def check_not_retargeted(adapter: Adapter, settings: TransferSettings) -> None:
    if adapter.retargeted and not settings.force:
        raise NotTransferable(
            f"'{adapter.name}' is itself the result of a transfer, and every transfer loses something: "
            "transfer the original adapter instead, or use --force"
        )


def check_not_aligned(adapter: Adapter, settings: TransferSettings) -> None:
    if settings.method == "align":
        raise SourceNeeded(
            f"aligning '{adapter.name}' compares the weights of both bases: give the base that it was trained on with --source"
        )


def check_works_without_source(adapter: Adapter, wanted: Sequence[LayerId], target: Checkpoint, settings: TransferSettings) -> None:
    """Without the source: blocks must be the target's own, and every delta must be known without its base."""
    needy = sorted({m.kind for i, m in adapter.modules.items() if i in set(wanted) and m.needs_base})
    if needy and all(adapter.modules[i].needs_base for i in wanted):
        raise SourceNeeded(
            f"'{adapter.name}' holds {', '.join(needy)} modules, which mean nothing without the base that they were trained on: "
            "give it with --source"
        )
    specs = adapter.arch.specs()
    mine = transformer_blocks(specs[i] for i in adapter.modules)
    theirs = transformer_blocks(layer.spec for layer in target.layers.values())
    made_for_it = adapter.arch.unet == target.arch.unet or mine == theirs or not any(i.component == Component.UNET for i in wanted)
    if not made_for_it and not settings.force:
        raise SourceNeeded(
            f"'{adapter.name}' is for {adapter.arch.title}, but '{target.name}' is {target.arch.title} with other blocks: "
            "give the source base with --source, so that blocks can be matched (by name they would go to the wrong places)"
        )


def transformer_blocks(specs: Iterable[LayerSpec]) -> set[str]:
    return {s.unit.path for s in specs if s.unit.kind == "transformer"}


def check_made_for(adapter: Adapter, wanted: Sequence[LayerId], source: Checkpoint) -> dict[LayerId, str]:
    """Layers that `source` lacks or has in another shape, with the reason; most of them means that it is not the source."""
    strangers: dict[LayerId, str] = {}
    for i in wanted:
        layer = source.layers.get(i)
        if layer is None:
            strangers[i] = "the source has no such layer"
        elif not adapter.modules[i].fits(layer.shape):
            strangers[i] = f"made for a weight of shape {adapter.modules[i].shape}, but the source's is {layer.shape}"
    if len(strangers) * 2 > len(wanted):
        example, reason = next(iter(strangers.items()))
        raise BaseMismatch(
            f"'{adapter.name}' was not made for '{source.name}': {len(strangers)} of its {len(wanted)} layers do not fit "
            f"({example}: {reason}); give the base that it was trained on"
        )
    return strangers


def require_transferable(plan: TransferPlan) -> None:
    """Raise `NotTransferable` for a plan whose verdict says so, unless the user forces it."""
    if plan.verdict == "not transferable" and not plan.settings.force:
        raise NotTransferable(
            f"{plan.adapter_name} → {plan.target_name}: {plan.verdict_reason}; --force writes it all the same, as an experiment"
        )
    if not plan.placed:
        raise MalformedAdapter(f"{plan.adapter_name} → {plan.target_name}: no layer is left to write; {skip_summary(plan)}")


def skip_summary(plan: TransferPlan) -> str:
    """The most frequent reason for skipping, as a phrase."""
    reasons = [d.reason for d in plan.decisions if d.action == "skip"]
    most = max(set(reasons), key=reasons.count) if reasons else "the adapter is empty"
    return f"most often: {most}"
