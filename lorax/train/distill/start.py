"""Where training starts from: a transfer by weights alone, and the layers of the target that are trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from lorax.adapter import Adapter, LowRank
from lorax.bases import Bases
from lorax.checkpoint import Checkpoint
from lorax.device import resolve_device
from lorax.errors import LoraxError, MalformedAdapter, NotTransferable, SourceNeeded
from lorax.formats.fingerprint import FingerprintCheck
from lorax.layers import Component, LayerId, LayerKind
from lorax.linalg import Factors
from lorax.structure.names import kohya_name
from lorax.train.distill.settings import DEFAULT_RANK, LARGEST_RANK, DistillSettings
from lorax.transfer.checks import check_families, check_made_for, check_not_retargeted
from lorax.transfer.decide import filtered, selects
from lorax.transfer.plan import plan_transfer
from lorax.transfer.run import run_plan, source_delta
from lorax.transfer.types import DEFAULT_MIN_SIMILARITY, Progress, TransferSettings

Deltas = Mapping[LayerId, Factors]


@dataclass(frozen=True, eq=False)
class Start:
    """What a weights-only transfer gives."""

    deltas: Deltas
    """By layer of the target; empty where it gives nothing."""
    method: str
    reason: str

    @property
    def unet(self) -> dict[LayerId, Factors]:
        return {i: f for i, f in self.deltas.items() if i.component == Component.UNET}

    @property
    def text(self) -> dict[LayerId, Factors]:
        return {i: f for i, f in self.deltas.items() if i.component != Component.UNET}


def wanted_layers(adapter: Adapter, source: Checkpoint, target: Checkpoint, settings: DistillSettings) -> list[LayerId]:
    """The adapter's layers whose effect is learned. Raises as `plan_transfer`, and where no layer of the UNet is among them."""
    transfer = _transfer_settings(settings)
    check_families(adapter, source, target)
    check_not_retargeted(adapter, TransferSettings(force=settings.force))
    chosen = [i for i in adapter.modules if not filtered(i, adapter, transfer)]
    if not any(i.component == Component.UNET for i in chosen):
        raise NotTransferable(
            f"no layer of the UNet is left of '{adapter.name}', and only those are distilled: "
            "choose another method, or loosen --only, --skip and --components"
        )
    strangers = check_made_for(adapter, chosen, source)
    return [i for i in chosen if i not in strangers]


def source_deltas(
    adapter: Adapter, wanted: Sequence[LayerId], source: Checkpoint, bases: Bases, device: str
) -> dict[LayerId, Factors | Tensor]:
    """What the adapter adds to each of the source's layers, as factors where it has them. Raises where it is of another base."""
    check = FingerprintCheck(adapter)
    found: dict[LayerId, Factors | Tensor] = {}
    for i in wanted:
        delta = source_delta(adapter.modules[i], i, source, bases, resolve_device(device))
        if delta is not None:
            check.add(i, delta)
            found[i] = delta
    check.require()
    return found


def compute_start(
    adapter: Adapter, source: Checkpoint, target: Checkpoint, settings: DistillSettings, bases: Bases, progress: Progress
) -> Start:
    """The weights-only transfer; of layers that share nothing it takes none, and between strangers it gives nothing."""
    if settings.start == "none":
        return Start({}, "none", "asked for")
    try:
        plan = plan_transfer(adapter, source, target, _transfer_settings(settings), progress=progress)
        done = run_plan(plan, adapter, source, target, bases, progress)
    except (NotTransferable, MalformedAdapter, SourceNeeded) as error:
        return Start({}, "none", str(error))
    return Start(done.modules, plan.method, plan.method_reason)


def trained_layers(
    adapter: Adapter, wanted: Sequence[LayerId], start: Start, target: Checkpoint, settings: DistillSettings
) -> list[LayerId]:
    """Layers of the target's UNet that get a LoRA: those of the kinds that the adapter changes, and those that the start changes."""
    specs = adapter.arch.specs()
    kinds = {(specs[i].unit.kind, specs[i].role) for i in wanted if i.component == Component.UNET and i in specs}

    def chosen(i: LayerId) -> bool:
        names = str(i), kohya_name(target.arch, i)
        if any(selects(p, n) for p in settings.skip for n in names):
            return False
        return not settings.only or any(selects(p, n) for p in settings.only for n in names)

    found = [
        i
        for i, layer in target.layers.items()
        if i.component == Component.UNET
        and layer.spec.kind in (LayerKind.LINEAR, LayerKind.CONV)
        and (i in start.unet or ((layer.spec.unit.kind, layer.spec.role) in kinds and chosen(i)))
    ]
    if not found:
        raise LoraxError(f"'{target.name}' has no layer of the kinds that '{adapter.name}' changes: loosen --only and --skip")
    return found


def choose_rank(adapter: Adapter, wanted: Sequence[LayerId], settings: DistillSettings) -> int:
    """r of the LoRA that is trained."""
    if settings.rank is not None:
        return settings.rank
    modules = [adapter.modules[i] for i in wanted if i.component == Component.UNET]
    ranks = [m.rank for m in modules if isinstance(m, LowRank) and m.rank]
    own = max(ranks, default=0) if adapter.native is None and len(ranks) == len(modules) else 0
    return min(own, LARGEST_RANK) or DEFAULT_RANK


def _transfer_settings(settings: DistillSettings) -> TransferSettings:
    """Forced, because it is only a start; gated, because layers that share nothing are a bad one."""
    method = "auto" if settings.start == "none" else settings.start
    return TransferSettings(
        method=method,
        min_similarity=None if method == "copy" else DEFAULT_MIN_SIMILARITY,
        only=settings.only,
        skip=settings.skip,
        components=settings.components,
        force=True,
        device=settings.device,
    )
