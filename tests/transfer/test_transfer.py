"""The whole river on small models in genuine layouts: match, score, plan, run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from converter.samples import block_map
from lorax.adapter import Adapter, LowRank
from lorax.archs import by_name
from lorax.checkpoint import Checkpoint, open_checkpoint
from lorax.errors import BaseMismatch, Cancelled, NotTransferable, SourceNeeded
from lorax.formats import read_adapter
from lorax.layers import Component
from lorax.spectral import compute_basis
from lorax.transfer.plan import plan_transfer
from lorax.transfer.relate import relate
from lorax.transfer.run import BATCH, Transferred, run_plan, shared_out
from lorax.transfer.types import TransferSettings
from tests.families import Family, write_lora


def transfer(adapter: Adapter, source: Checkpoint | None, target: Checkpoint, **settings: object) -> Transferred:
    plan = plan_transfer(adapter, source, target, TransferSettings(**settings))  # type: ignore[arg-type]
    return run_plan(plan, adapter, source, target)


@pytest.fixture(scope="module")
def sd1_lora(sd1: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lora(tmp_path_factory.mktemp("lora") / "style.safetensors", sd1)


@pytest.fixture(scope="module")
def sdxl_lora(sdxl: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lora(tmp_path_factory.mktemp("lora") / "style.safetensors", sdxl)


def test_an_ordinary_lora_is_copied_to_a_fine_tune(sd1: Family, sd1_lora: Path):
    with open_checkpoint(sd1["source"]) as source, open_checkpoint(sd1["fine"]) as target:
        adapter = read_adapter(sd1_lora, source.arch)
        done = transfer(adapter, source, target)
    plan = done.report.plan
    assert (plan.method, plan.verdict) == ("copy", "should work")
    assert done.report.modules_out == done.report.modules_in == len(adapter.modules)
    assert done.report.energy_kept == pytest.approx(1.0, abs=1e-5)
    reasons = {d.reason for d in plan.decisions if d.target and d.target.component == Component.TE1}
    assert reasons == {"same weights in both bases"}
    for layer, factors in done.modules.items():
        torch.testing.assert_close(factors.dense(), adapter.modules[layer].delta(), rtol=1e-3, atol=1e-5)


def test_copies_that_are_only_written_again_stay_in_the_files_own_tensors(sd1: Family, sd1_lora: Path):
    with open_checkpoint(sd1["source"]) as source, open_checkpoint(sd1["fine"]) as target:
        adapter = read_adapter(sd1_lora, source.arch)
        for strength in (1.0, 0.5):
            plan = plan_transfer(adapter, source, target, TransferSettings(strength=strength))
            wide = run_plan(plan, adapter, source, target)
            kept = run_plan(plan, adapter, source, target, as_stored=True)
            assert kept.modules.keys() == wide.modules.keys()
            for layer, factors in kept.modules.items():
                module = adapter.modules[layer]
                assert isinstance(module, LowRank)
                own = factors.down.data_ptr() == module.down.data_ptr()
                assert own == (strength == 1.0 and module.scale == 1.0)
                assert torch.equal(factors.up.float() @ factors.down.float(), wide.modules[layer].dense())
                assert factors.energy() == pytest.approx(wide.modules[layer].energy(), rel=1e-5)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_projections_of_one_shape_go_together_on_a_gpu_and_alone_on_a_cpu(sd1: Family, sd1_lora: Path, device: str):
    with open_checkpoint(sd1["source"]) as source, open_checkpoint(sd1["fine"]) as target:
        adapter = read_adapter(sd1_lora, source.arch)
        plan = plan_transfer(adapter, source, target, TransferSettings(method="project", k=6, device="cpu"))
        shares = shared_out(plan, adapter, target, torch.device(device))
        shapes = [{target.layers[d.target].shape for d in share if d.target} for share in shares if share[0].action == "project"]
    assert sorted(map(str, (d for share in shares for d in share))) == sorted(map(str, plan.decisions))
    assert all(len(found) == 1 for found in shapes)
    projections = [len(share) for share in shares if share[0].action == "project"]
    assert max(projections) == (1 if device == "cpu" else BATCH)


def test_projection_is_the_equation_layer_by_layer(sd1: Family, sd1_lora: Path):
    with open_checkpoint(sd1["source"]) as source, open_checkpoint(sd1["fine"]) as target:
        adapter = read_adapter(sd1_lora, source.arch)
        done = transfer(adapter, source, target, method="project", k=6)
        layer = next(i for i in done.modules if i.component == Component.UNET)
        basis = compute_basis(target.read(target.layers[layer]), 6)
    expected = basis.U @ basis.U.T @ adapter.modules[layer].delta() @ basis.V @ basis.V.T
    torch.testing.assert_close(done.modules[layer].dense(), expected, rtol=1e-3, atol=1e-5)
    assert 0.0 < (done.report.energy_kept or 0.0) < 1.0
    assert all(r.rank <= 4 for r in done.report.results)


def test_projecting_needs_no_source(sd1: Family, sd1_lora: Path):
    with open_checkpoint(sd1["source"]) as source, open_checkpoint(sd1["fine"]) as target:
        adapter = read_adapter(sd1_lora)
        alone = transfer(adapter, None, target, method="project", k=6)
        beside = transfer(adapter, source, target, method="project", k=6)
    assert alone.report.plan.verdict == "unchecked"
    unet = [i for i in beside.modules if i.component == Component.UNET]
    assert unet
    for layer in unet:
        torch.testing.assert_close(alone.modules[layer].dense(), beside.modules[layer].dense())


def test_the_planted_block_map_is_found_and_not_the_by_name_one(sdxl: Family, sdxl_lora: Path):
    with open_checkpoint(sdxl["source"]) as source, open_checkpoint(sdxl["pruned"]) as target:
        done = transfer(read_adapter(sdxl_lora, source.arch), source, target)
    planted = block_map(sdxl.arch, by_name("ssd-1b"))
    found = {u.target.removeprefix("unet."): (u.source or "").removeprefix("unet.") for u in done.report.plan.units}
    transformers = {t: s for t, s in found.items() if "transformer_blocks" in t}
    assert len(transformers) == 34
    assert transformers == {t: planted[t] for t in transformers}
    assert any(t != s for t, s in transformers.items())
    assert done.report.plan.verdict == "should work"
    assert all(u.cosine is not None and u.cosine > 0.9 for u in done.report.plan.units)
    used = [u.source for u in done.report.plan.units]
    assert len(used) == len(set(used))


def test_the_reverse_direction_leaves_new_blocks_without(sdxl: Family, sdxl_lora: Path):
    with open_checkpoint(sdxl["pruned"]) as source, open_checkpoint(sdxl["source"]) as target:
        adapter = read_adapter(sdxl_lora, source.arch)
        plan = plan_transfer(adapter, source, target)
    planted = {v: k for k, v in block_map(sdxl.arch, by_name("ssd-1b")).items()}
    for unit in plan.units:
        expected = planted.get(unit.target.removeprefix("unet."))
        assert unit.source == (f"unet.{expected}" if expected else None)


def test_residual_blocks_that_are_gone_make_the_verdict_weak(sd1: Family, sd1_lora: Path):
    with open_checkpoint(sd1["source"]) as source, open_checkpoint(sd1["pruned"]) as target:
        plan = plan_transfer(read_adapter(sd1_lora, source.arch), source, target)
    planted = block_map(sd1.arch, by_name("bk-sdm-base"))
    found = {u.target.removeprefix("unet."): u.source for u in plan.units}
    assert found == {t: f"unet.{planted[t]}" for t in found}
    assert plan.verdict == "weak"
    skipped = [d for d in plan.decisions if d.action == "skip"]
    assert skipped
    assert {d.reason for d in skipped} == {"its block has no counterpart in the target"}


def test_unrelated_bases_are_refused_unless_forced(sd1: Family, sd1_lora: Path):
    with open_checkpoint(sd1["source"]) as source, open_checkpoint(sd1["other"]) as target:
        adapter = read_adapter(sd1_lora, source.arch)
        plan = plan_transfer(adapter, source, target)
        assert plan.verdict == "not transferable"
        with pytest.raises(NotTransferable, match="unrelated"):
            run_plan(plan, adapter, source, target)
        assert transfer(adapter, source, target, force=True).report.modules_out == len(adapter.modules)


def test_other_families_are_refused_with_the_reason(sd1: Family, sdxl: Family, sd1_lora: Path):
    with open_checkpoint(sdxl["source"]) as target, pytest.raises(NotTransferable, match=r"for sd1, but the target 'source' is sdxl"):
        plan_transfer(read_adapter(sd1_lora), None, target)
    with open_checkpoint(sdxl["source"]) as source, open_checkpoint(sd1["fine"]) as target, pytest.raises(BaseMismatch, match="trained on"):
        plan_transfer(read_adapter(sd1_lora), source, target)


def test_a_pruned_target_without_the_source_is_refused(sdxl: Family, sdxl_lora: Path):
    with open_checkpoint(sdxl["pruned"]) as target, pytest.raises(SourceNeeded, match="blocks can be matched"):
        plan_transfer(read_adapter(sdxl_lora), None, target)


def test_the_same_base_is_an_identity(sd1: Family, sd1_lora: Path):
    with open_checkpoint(sd1["source"]) as source, open_checkpoint(sd1["source"]) as target:
        adapter = read_adapter(sd1_lora, source.arch)
        done = transfer(adapter, source, target, method="project", k=2)
    assert done.report.plan.verdict == "same base"
    assert done.report.energy_kept == pytest.approx(1.0, abs=1e-5)


def test_the_gate_drops_what_is_under_it_and_says_so(sd1: Family, sd1_lora: Path):
    with open_checkpoint(sd1["source"]) as source, open_checkpoint(sd1["fine"]) as target:
        plan = plan_transfer(read_adapter(sd1_lora, source.arch), source, target, TransferSettings(min_similarity=0.999))
    gated = [d for d in plan.decisions if d.action == "skip"]
    assert gated
    assert all("under the gate of 1.00" in d.reason for d in gated)
    assert all(d.score.same_weights for d in plan.placed)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"only": ("*.attn2.*",)}, lambda i: ".attn2." in i.path),
        ({"skip": ("down_blocks",)}, lambda i: "down_blocks" not in i.path),
        ({"components": (Component.TE1,)}, lambda i: i.component == Component.TE1),
        ({"only": ("lora_unet_mid_block*",)}, lambda i: i.path.startswith("mid_block")),
    ],
)
def test_filters_take_what_they_name(sd1: Family, sd1_lora: Path, settings, kept):
    with open_checkpoint(sd1["source"]) as source, open_checkpoint(sd1["fine"]) as target:
        adapter = read_adapter(sd1_lora, source.arch)
        done = transfer(adapter, source, target, **settings)
    assert set(done.modules) == {i for i in adapter.modules if kept(i)}
    assert done.report.modules_in == len(adapter.modules)


def test_filters_that_leave_nothing_are_an_error(sd1: Family, sd1_lora: Path):
    with open_checkpoint(sd1["fine"]) as target, pytest.raises(NotTransferable, match="loosen"):
        plan_transfer(read_adapter(sd1_lora), None, target, TransferSettings(only=("nothing",)))


def test_strength_and_rank_act_on_what_is_written(sd1: Family, sd1_lora: Path):
    with open_checkpoint(sd1["source"]) as source, open_checkpoint(sd1["fine"]) as target:
        adapter = read_adapter(sd1_lora, source.arch)
        full, half = transfer(adapter, source, target), transfer(adapter, source, target, strength=0.5)
        cut = transfer(adapter, source, target, out_rank=2)
    layer = next(iter(full.modules))
    torch.testing.assert_close(half.modules[layer].dense() * 2, full.modules[layer].dense())
    assert {f.rank for f in cut.modules.values()} == {2}
    assert 0.0 < (cut.report.energy_kept or 0.0) < 1.0


def test_a_relation_is_shared_by_adapters(sdxl: Family, sdxl_lora: Path):
    with open_checkpoint(sdxl["source"]) as source, open_checkpoint(sdxl["pruned"]) as target:
        adapter = read_adapter(sdxl_lora, source.arch)
        relation = relate(source, target, list(adapter.modules))
        settings = TransferSettings(only=("attn1",))
        assert (
            plan_transfer(adapter, source, target, settings, relation).decisions
            == plan_transfer(adapter, source, target, settings).decisions
        )


def test_cancelling_stops_the_work(sd1: Family, sd1_lora: Path):
    def stop(text: str, done: int, total: int) -> None:
        if done == 3:
            raise Cancelled("stopped")

    with open_checkpoint(sd1["source"]) as source, open_checkpoint(sd1["fine"]) as target, pytest.raises(Cancelled):
        plan_transfer(read_adapter(sd1_lora), source, target, progress=stop)
