"""Alignment on models whose channels are known, because they were moved there: other order, other rotation, fewer channels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from converter.samples import Widths, block_map, pruned, relative, sample_checkpoint
from lorax.adapter import Adapter, Dense, LowRank
from lorax.archs import by_name
from lorax.checkpoint import Checkpoint, open_checkpoint
from lorax.errors import MissingPackage, SourceNeeded
from lorax.layers import Component, LayerId, LayerKind
from lorax.linalg import flatten_weight
from lorax.safefile import write_safetensors
from lorax.transfer.align import find_alignment, match_whole
from lorax.transfer.align.assign import assign
from lorax.transfer.align.maps import identity, map_columns, map_rows
from lorax.transfer.plan import plan_transfer
from lorax.transfer.relate import relate
from lorax.transfer.run import run_plan
from lorax.transfer.types import TransferSettings
from tests.transfer.rebased import Maps, narrowing, scrambling, write_rebased

WIDTHS = Widths(channels=(16, 32, 48, 48), groups=4, text1=16, text2=16, vocabulary=64)
SD1 = "bk-sdm-base"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("aligned")


def write(folder: Path, name: str, tensors: dict[str, torch.Tensor]) -> Path:
    path = folder / f"{name}.safetensors"
    if not path.exists():
        write_safetensors(path, tensors, {})
    return path


@pytest.fixture(scope="module")
def sd1(folder: Path) -> Path:
    """Half of SD1's blocks: every role is there, and the tests are quick."""
    return write(folder, "sd1", sample_checkpoint(by_name(SD1), widths=WIDTHS))


@pytest.fixture(scope="module")
def sdxl(folder: Path) -> Path:
    return write(folder, "sdxl", sample_checkpoint(by_name("koala-700m"), widths=WIDTHS))


def adapter_for(base: Checkpoint, rank: int = 3, every: int = 5) -> Adapter:
    """Factors on some layers of every role, convolutions included, and a full difference on one."""
    generator = torch.Generator().manual_seed(4)
    layers = [x for x in base.layers.values() if x.spec.kind in (LayerKind.LINEAR, LayerKind.CONV)]
    modules = {}
    for layer in layers[::every]:
        up = torch.randn(layer.shape[0], rank, generator=generator)
        modules[layer.id] = LowRank(up, torch.randn(rank, *layer.shape[1:], generator=generator))
    full = next(x for x in layers if x.spec.role == "conv2")
    modules[full.id] = Dense(torch.randn(full.shape, generator=generator))
    return Adapter(name="style", path=None, format="kohya", arch=base.arch, modules=modules)


def expected(adapter: Adapter, base: Checkpoint, layer: LayerId, maps: Maps) -> torch.Tensor:
    """``M_out ΔW M_inᵀ`` by the maps that the target was made with."""
    sides, shape = base.arch.wiring()[layer], base.layers[layer].shape
    delta = adapter.modules[layer].delta().reshape(shape[0], shape[1], -1)
    rows = map_rows(delta, maps[sides.out], sides.out.kind == "gated")
    return map_columns(rows, [maps[s] for s in sides.inputs]).flatten(1)


def carried(source: Checkpoint, target: Checkpoint, adapter: Adapter, **settings: object):
    plan = plan_transfer(adapter, source, target, TransferSettings(out_energy=1.0, **settings))  # type: ignore[arg-type]
    return plan, run_plan(plan, adapter, source, target)


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_a_scrambled_model_gets_what_its_unscrambled_self_gets(folder: Path, sd1: Path, noise: float):
    with open_checkpoint(sd1) as source:
        maps = scrambling(source, cell=4, heads=lambda n: 8)
        with open_checkpoint(write_rebased(folder / f"scrambled{noise}.safetensors", source, maps, noise)) as target:
            adapter = adapter_for(source)
            plan, done = carried(source, target, adapter)
            assert (plan.method, plan.verdict) == ("align", "should work")
            assert set(done.modules) == set(adapter.modules)
            for layer, factors in done.modules.items():
                wanted = expected(adapter, source, layer, maps)
                missed = float((factors.dense() - wanted).norm() / wanted.norm())
                assert missed < (1e-3 if noise == 0.0 else 0.35), layer


def test_sdxl_is_aligned_too(folder: Path, sdxl: Path):
    with open_checkpoint(sdxl) as source:
        maps = {s: m if s.component == Component.UNET else identity(m.sizes[1]) for s, m in scrambling(source, 4, lambda n: n // 8).items()}
        with open_checkpoint(write_rebased(folder / "scrambled-sdxl.safetensors", source, maps)) as target:
            adapter = adapter_for(source, every=9)
            plan, done = carried(source, target, adapter, method="align")
            assert plan.verdict == "should work"
            for layer, factors in done.modules.items():
                wanted = expected(adapter, source, layer, maps)
                assert float((factors.dense() - wanted).norm() / wanted.norm()) < 1e-3, layer


def test_the_channels_of_a_narrower_model_are_found(folder: Path, sd1: Path):
    with open_checkpoint(sd1) as source:
        maps = narrowing(source, keep=3, cell=4)
        with open_checkpoint(write_rebased(folder / "narrow.safetensors", source, maps, 0.1)) as target:
            adapter = adapter_for(source)
            plan, done = carried(source, target, adapter)
            assert plan.method == "align"
            assert plan.verdict == "weak"
            assert "12 channels" in plan.verdict_reason
            assert {f.rank for i, f in done.modules.items() if isinstance(adapter.modules[i], LowRank)} <= {2, 3}, "factors stay factors"
            for layer, factors in done.modules.items():
                assert done.shapes[layer] == target.layers[layer].shape
                if layer.path != "time_embedding.linear_1":
                    wanted = expected(adapter, source, layer, maps)
                    assert float((factors.dense() - wanted).norm() / wanted.norm()) < 0.2, layer


def test_blocks_are_matched_where_widths_differ(folder: Path):
    parent, child = by_name("sd1"), by_name("bk-sdm-tiny")
    tensors = sample_checkpoint(parent, widths=WIDTHS)
    whole, small = write(folder, "parent", tensors), write(folder, "child", pruned(tensors, parent, child, noise=0.1))
    with open_checkpoint(whole) as source, open_checkpoint(small) as middle:
        maps = narrowing(middle, keep=3, cell=4)
        with open_checkpoint(write_rebased(folder / "narrow-child.safetensors", middle, maps)) as target:
            matching = match_whole(source, target, CPU, lambda *_: None)
            alignment = find_alignment(source, target, matching)
    planted = block_map(parent, child)
    assert {u.target.removeprefix("unet."): (u.source or "").removeprefix("unet.") for u in matching.units} == planted
    for (space, _), found in alignment.maps.items():
        rows = torch.randn(found.sizes[1], 4)
        near = (found.apply(rows) - maps[space].apply(rows)).norm(dim=1) < 0.1
        assert float(near.float().mean()) > 0.95, space


def test_siblings_keep_every_bit(folder: Path, sd1: Path):
    fine = write(folder, "fine", relative(sample_checkpoint(by_name(SD1), widths=WIDTHS), 0.3))
    with open_checkpoint(sd1) as source, open_checkpoint(fine) as target:
        adapter = adapter_for(source)
        aligned, copied = (carried(source, target, adapter, method=method) for method in ("align", "copy"))
    assert aligned[0].alignment is not None
    assert aligned[0].alignment.identity
    assert {d.action for d in aligned[0].placed} == {"copy"}
    for layer, factors in copied[1].modules.items():
        assert torch.equal(aligned[1].modules[layer].up, factors.up)
        assert torch.equal(aligned[1].modules[layer].down, factors.down)


def test_unrelated_models_are_refused_at_any_width(folder: Path, sd1: Path):
    other = write(folder, "other", sample_checkpoint(by_name(SD1), widths=WIDTHS, seed=9))
    with open_checkpoint(sd1) as source, open_checkpoint(other) as stranger:
        adapter = adapter_for(source)
        narrow = write_rebased(folder / "narrow-other.safetensors", stranger, narrowing(stranger, 3, 4))
        with open_checkpoint(narrow) as narrower:
            for target, method in ((stranger, "auto"), (narrower, "auto"), (narrower, "align")):
                plan = plan_transfer(adapter, source, target, TransferSettings(method=method))
                assert plan.verdict == "not transferable", (target.name, method, plan.verdict_reason)
                assert plan.cosine is None or plan.cosine < 0.25


def test_a_relation_holds_the_alignment(folder: Path, sd1: Path):
    with open_checkpoint(sd1) as source:
        target_path = write_rebased(folder / "scrambled3.safetensors", source, scrambling(source, 4, lambda n: 8, seed=3))
        with open_checkpoint(target_path) as target:
            adapter = adapter_for(source, every=40)
            relation = relate(source, target, list(adapter.modules))
            copied = plan_transfer(adapter, source, target, TransferSettings(method="copy"), relation)
            found = plan_transfer(adapter, source, target, TransferSettings(), relation)
    assert relation.aligned is not None
    assert (copied.verdict, found.verdict) == ("not transferable", "should work")


def test_aligning_needs_the_source(sd1: Path):
    with open_checkpoint(sd1) as target, pytest.raises(SourceNeeded, match="--source"):
        plan_transfer(adapter_for(target), None, target, TransferSettings(method="align"))


def test_the_best_assignment_is_found_with_rows_or_columns_to_spare():
    score = torch.tensor([[5.0, 4.0, 0.0], [5.0, 1.0, 0.0]])
    assert assign(score).tolist() == [1, 0]
    assert assign(score.T).tolist() == [1, 0, -1]


def test_without_scipy_it_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "scipy.optimize", None)
    with pytest.raises(MissingPackage, match="pip install scipy"):
        assign(torch.tensor([[5.0, 4.0], [5.0, 1.0]]))


def test_the_scrambled_model_computes_the_same(folder: Path, sd1: Path):
    """The scramble itself, through diffusers: otherwise the tests above would prove nothing."""
    diffusers = pytest.importorskip("diffusers")
    from converter.samples import diffusers_config

    outputs = []
    with open_checkpoint(sd1) as source:
        maps = scrambling(source, 4, lambda n: max(1, WIDTHS.heads * n // 16))
        maps = {s: m if s.component == Component.UNET else identity(m.sizes[1]) for s, m in maps.items()}
        with open_checkpoint(write_rebased(folder / "same.safetensors", source, maps)) as target:
            for base in (source, target):
                unet = diffusers.UNet2DConditionModel(**diffusers_config(base.arch, WIDTHS)).eval()
                state = {}
                for layer in base.layers.values():
                    if layer.id.component == Component.UNET:
                        state[f"{layer.id.path}.weight"] = base.read(layer)
                        if (bias := base.read_bias(layer)) is not None:
                            state[f"{layer.id.path}.bias"] = bias
                unet.load_state_dict(state)
                generator = torch.Generator().manual_seed(0)
                with torch.no_grad():
                    x, text = torch.randn(1, 4, 16, 16, generator=generator), torch.randn(1, 7, 16, generator=generator)
                    outputs.append(unet(x, torch.tensor([500]), text).sample)
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-3, atol=1e-4)
    assert float(flatten_weight(outputs[0]).norm()) > 0


def test_an_adapter_of_the_text_encoder_does_not_care_for_the_unet(folder: Path, sd1: Path):
    with open_checkpoint(sd1) as source:
        maps = narrowing(source, keep=3, cell=4)
        with open_checkpoint(write_rebased(folder / "narrow-text.safetensors", source, maps)) as target:
            adapter = adapter_for(source)
            text = {i: m for i, m in adapter.modules.items() if i.component == Component.TE1}
            plan = plan_transfer(Adapter("style", None, "kohya", source.arch, text), source, target)
    assert (plan.method, plan.verdict) == ("copy", "same base")
