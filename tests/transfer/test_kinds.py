"""Every kind of module goes through the river: its delta on the source comes out on the target, as low rank."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lorax.adapter import Adapter, AdapterModule, Decomposed, Dense, Hadamard, Kronecker, LowRank, Offset, Scaling
from lorax.archs import by_name
from lorax.checkpoint import open_checkpoint
from lorax.errors import SourceNeeded
from lorax.formats import read_adapter
from lorax.layers import Component, LayerId, LayerKind
from lorax.linalg import flatten_weight
from lorax.transfer.plan import plan_transfer
from lorax.transfer.run import run_plan
from lorax.transfer.types import TransferSettings
from tests.families import Family, write_lora

LINEAR = LayerId(Component.UNET, "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q")
CONV = LayerId(Component.UNET, "down_blocks.1.resnets.1.conv1")
N = 32
"""Channels at that level."""


def rand(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))) * 0.1


KINDS: dict[str, tuple[LayerId, AdapterModule]] = {
    "lora": (LINEAR, LowRank(rand(N, 3), rand(3, N), 0.5)),
    "locon": (CONV, LowRank(rand(N, 3, 1, 1), rand(3, N, 3, 3))),
    "tucker": (CONV, LowRank(rand(N, 3, 1, 1), rand(3, N, 1, 1), mid=rand(3, 3, 3, 3))),
    "full": (CONV, Dense(rand(N, N, 3, 3))),
    "dora": (LINEAR, Decomposed(LowRank(rand(N, 3), rand(3, N)), 1 + rand(N, 1))),
    "loha": (LINEAR, Hadamard(rand(N, 2), rand(2, N), rand(N, 2), rand(2, N))),
    "ia3": (LINEAR, Scaling(rand(N), on_input=False)),
}


def adapter_of(layer: LayerId, module: AdapterModule) -> Adapter:
    return Adapter(name="style", path=None, format="kohya", arch=by_name("sd1"), modules={layer: module})


@pytest.mark.parametrize("name", KINDS)
def test_the_delta_on_the_source_comes_out_on_the_target(sd1: Family, name: str):
    layer, module = KINDS[name]
    adapter = adapter_of(layer, module)
    with open_checkpoint(sd1["source"]) as source, open_checkpoint(sd1["fine"]) as target:
        expected = module.delta(source.read(source.layers[layer]))
        plan = plan_transfer(adapter, source, target, TransferSettings(out_energy=1.0))
        done = run_plan(plan, adapter, source, target)
        projected = run_plan(plan_transfer(adapter, source, target, TransferSettings(method="project", k=8)), adapter, source, target)
        weight = flatten_weight(target.read(target.layers[layer]))
    torch.testing.assert_close(done.modules[layer].dense(), expected, rtol=1e-3, atol=1e-4)
    assert done.shapes[layer] == ((N, N, 3, 3) if layer == CONV else (N, N))
    u, _, vh = torch.linalg.svd(weight, full_matrices=False)
    left = u[:, 8:].T @ projected.modules[layer].dense()
    right = projected.modules[layer].dense() - projected.modules[layer].dense() @ vh[:8].T @ vh[:8]
    assert float(left.abs().max()) < 1e-3
    assert float(right.abs().max()) < 1e-3


@pytest.mark.parametrize("name", ["dora", "ia3"])
def test_kinds_that_change_their_base_ask_for_it(sd1: Family, name: str):
    with open_checkpoint(sd1["fine"]) as target, pytest.raises(SourceNeeded, match=f"{KINDS[name][1].kind} modules"):
        plan_transfer(adapter_of(*KINDS[name]), None, target)


def test_one_such_module_among_others_is_left_out_with_the_reason(sd1: Family):
    adapter = Adapter(
        name="style", path=None, format="kohya", arch=by_name("sd1"), modules={LINEAR: KINDS["dora"][1], CONV: KINDS["locon"][1]}
    )
    with open_checkpoint(sd1["fine"]) as target:
        plan = plan_transfer(adapter, None, target)
        done = run_plan(plan, adapter, None, target)
    assert set(done.modules) == {CONV}
    assert next(d.reason for d in plan.decisions if d.source == LINEAR) == "a dora module needs its source base: give it with --source"


def test_offsets_are_named_in_the_plan(sd1: Family):
    adapter = Adapter(
        name="style",
        path=None,
        format="kohya",
        arch=by_name("sd1"),
        modules={LINEAR: KINDS["lora"][1]},
        offsets={LINEAR: Offset(bias=rand(N))},
    )
    with open_checkpoint(sd1["fine"]) as target:
        plan = plan_transfer(adapter, None, target)
    assert any("1 bias or norm offsets" in note for note in plan.notes)


def test_kronecker_factors_are_folded_and_factored(sd1: Family):
    adapter = adapter_of(LINEAR, Kronecker(w1=rand(4, 4), w2=rand(8, 8)))
    with open_checkpoint(sd1["source"]) as source, open_checkpoint(sd1["fine"]) as target:
        plan = plan_transfer(adapter, source, target)
        done = run_plan(plan, adapter, source, target)
    assert any("factored anew" in note for note in plan.notes)
    assert 0.98 < (done.report.energy_kept or 0.0) <= 1.0001


def test_every_linear_and_convolution_is_carried(sd1: Family, tmp_path: Path):
    path = write_lora(tmp_path / "all.safetensors", sd1, rank=2, wanted=lambda s: s.kind in (LayerKind.LINEAR, LayerKind.CONV))
    with open_checkpoint(sd1["source"]) as source, open_checkpoint(sd1["fine"]) as target:
        adapter = read_adapter(path, source.arch)
        done = run_plan(plan_transfer(adapter, source, target), adapter, source, target)
    assert {len(s) for s in done.shapes.values()} == {2, 4}
    assert set(done.modules) == set(adapter.modules)
