"""The columns of the table: what becomes of an adapter on a target, by each method, through the project's own functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from benchmarks.quality.adapters import Deltas, K
from lorax import (
    Adapter,
    Bases,
    Checkpoint,
    LayerId,
    NotTransferable,
    Relation,
    Spectral,
    TransferPlan,
    TransferSettings,
    compute_basis,
    flatten_weight,
    open_checkpoint,
    plan_transfer,
    read_adapter,
    relate,
    run_plan,
)


@dataclass(frozen=True, eq=False)
class Column:
    """One way's answer for one adapter."""

    deltas: Deltas | None
    """None where it is refused or undefined."""
    note: str = ""
    """Why, or what `auto` chose."""
    verdict: str = ""


class Pair:
    """A source and a target with what relates them, found once for all adapters."""

    def __init__(self, source: Path, target: Path) -> None:
        self.source, self.target = open_checkpoint(source), open_checkpoint(target)
        self._relation: Relation | None = None
        self.bases = Bases()

    def relation(self, adapter: Adapter) -> Relation:
        if self._relation is None:
            self._relation = relate(self.source, self.target, sorted(adapter.modules))
        return self._relation

    def plan(self, adapter: Adapter, settings: TransferSettings) -> TransferPlan:
        return plan_transfer(adapter, self.source, self.target, settings, self.relation(adapter))

    def close(self) -> None:
        self.source.close()
        self.target.close()


def own_deltas(path: Path, base: Checkpoint) -> Deltas:
    """An adapter on the base that it was trained on."""
    adapter = read_adapter(path, base.arch)
    return {i: source_delta(adapter, i, base) for i in adapter.modules}


def source_delta(adapter: Adapter, layer: LayerId, base: Checkpoint) -> Tensor:
    """ΔW, flattened [out, in·kh·kw]."""
    module = adapter.modules[layer]
    if isinstance(module, Spectral):
        return module.on(compute_basis(flatten_weight(base.read(base.layers[layer])), module.rank)).dense()
    factors = module.factors()
    return module.delta() if factors is None else factors.dense()


def by_method(pair: Pair, path: Path, method: str) -> Column:
    """A method of the project by its name; controls are forced, `auto` speaks for itself."""
    adapter = read_adapter(path, pair.source.arch)
    settings = TransferSettings(method=method, force=method != "auto", out_rank=64, out_energy=1.0)  # pyright: ignore[reportArgumentType]
    plan = pair.plan(adapter, settings)
    if not plan.placed:
        return Column(None, "no layer has a place", plan.verdict)
    try:
        done = run_plan(plan, adapter, pair.source, pair.target, pair.bases)
    except NotTransferable as refused:
        return Column(None, str(refused), plan.verdict)
    return Column({i: f.dense() for i, f in done.modules.items()}, plan.method, plan.verdict)


def project_third(pair: Pair, path: Path) -> Column:
    """Eq. 3 at k ≈ d/3 for every kind of adapter (a native one's own k)."""
    adapter = read_adapter(path, pair.source.arch)
    plan = pair.plan(adapter, TransferSettings(method="project", k=K, force=True, min_similarity=-1.0, out_rank=64, out_energy=1.0))
    if not plan.placed:
        return Column(None, "no layer has a place", plan.verdict)
    done = run_plan(plan, adapter, pair.source, pair.target, pair.bases)
    return Column({i: f.dense() for i, f in done.modules.items()}, f"k = {K}", plan.verdict)


def by_name(pair: Pair, path: Path) -> Column:
    """Each delta to the layer of the same name, where the shape agrees: what loaders do today."""
    adapter = read_adapter(path, pair.source.arch)
    found: dict[LayerId, Tensor] = {}
    for i in adapter.modules:
        layer = pair.target.layers.get(i)
        if layer is not None and layer.shape == pair.source.layers[i].shape:
            found[i] = source_delta(adapter, i, pair.source)
    return Column(found or None, "" if found else "no layer of the same name and shape")


def index_map(pair: Pair, path: Path) -> Column:
    """The paper's map for layers that differ, ``P̂ = argmin ‖P U_s − U_t‖²``, which copies ΔΣ by singular index (k = 20);
    blocks are matched as in every other column."""
    adapter = read_adapter(path, pair.source.arch)
    found: dict[LayerId, Tensor] = {}
    for match in pair.relation(adapter).matching.layers:
        if match.source not in adapter.modules:
            continue
        ours, theirs = (
            compute_basis(flatten_weight(base.read(base.layers[i])), K)
            for base, i in ((pair.target, match.target), (pair.source, match.source))
        )
        k = min(ours.k, theirs.k)
        core = theirs.U[:, :k].T @ source_delta(adapter, match.source, pair.source) @ theirs.V[:, :k]
        found[match.target] = ours.U[:, :k] @ core @ ours.V[:, :k].T
    return Column(found or None)


COLUMNS: Mapping[str, Callable[[Pair, Path], Column]] = {
    "by name": by_name,
    "copy": lambda pair, path: by_method(pair, path, "copy"),
    "index map": index_map,
    "project": project_third,
    "align": lambda pair, path: by_method(pair, path, "align"),
    "auto": lambda pair, path: by_method(pair, path, "auto"),
}
"""Those that take weights alone; `none`, `trained` and `distill` need models."""
SCALES = (0.5, 0.75)
"""The α of the control copy × α."""
