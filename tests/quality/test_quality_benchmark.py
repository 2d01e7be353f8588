"""The quality benchmark's own parts: what its tables are computed from has to be right before any of them is believed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.quality import shapes
from benchmarks.quality.adapters import KINDS, Kind, applied, train_adapter
from benchmarks.quality.aim import Aim
from benchmarks.quality.bases import train_source
from benchmarks.quality.columns import Pair, by_name, own_deltas
from benchmarks.quality.cuts import CELL, KEEP, cut_blocks, cut_width, true_block
from benchmarks.quality.evaluate import Choice, Evaluation
from benchmarks.quality.family import CI, Member, Workshop
from benchmarks.quality.layouts import pipeline, read_unet, write_model
from benchmarks.quality.pictures import CAPTIONS, DOMAINS, STYLES, attributes, draw
from benchmarks.quality.report import write_report
from benchmarks.quality.rows import Relatedness, Results, Row
from benchmarks.quality.stage import Stage
from benchmarks.quality.tables import cell, difference, predictors, rank_correlation, recovered, table
from lorax import Component, LayerId, LayerKind, open_checkpoint, read_adapter, relate

TINY = replace(CI, vae=1, source=2, independent=1, finetune=1, distil=1, adapter=2, base_pictures=64, style_pictures=64, held_out=32)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Models that have hardly learned anything; nothing is measured on them."""
    return Workshop(tmp_path_factory.mktemp("quality"), TINY, lambda text: None)


def test_pictures_are_the_same_for_a_seed_and_differ_by_style() -> None:
    plain = draw(8, 5)
    assert torch.equal(plain.pixels, draw(8, 5).pixels)
    assert plain.pixels.shape == (8, 3, 16, 16)
    assert plain.pixels.abs().max() <= 1
    seen = [draw(8, 5, domain, style).pixels for domain in DOMAINS for style in STYLES]
    assert all(not torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])
    colour, shape, place = attributes(torch.arange(len(CAPTIONS)))
    assert len(set(zip(colour.tolist(), shape.tolist(), place.tolist(), strict=True))) == len(CAPTIONS)


@pytest.mark.parametrize("family", ["sd", "xl"])
def test_a_file_is_recognised_and_holds_the_model(workshop: Workshop, family: str, tmp_path: Path) -> None:
    shape, stage = {"sd": shapes.SD, "xl": shapes.XL}[family], workshop.stage
    unet, path = shapes.make_unet(shape, 1).eval(), tmp_path / "model.safetensors"
    write_model(path, shape, unet, stage.vae, stage.tokenizer, stage.encoders(shape.xl))
    with open_checkpoint(path) as base, open_checkpoint(path.with_suffix("")) as folder:
        assert (base.arch.name, base.arch.unet, base.arch.text) == (shape.arch.name, shape.arch.unet, shape.arch.text)
        assert (base.prediction_type, folder.prediction_type) == ("v", "v")
        assert base.layers.keys() == folder.layers.keys()
        for i, layer in base.layers.items():
            assert torch.equal(base.read(layer), folder.read(folder.layers[i])), i
    assert all(torch.equal(t, unet.state_dict()[name]) for name, t in read_unet(path).state_dict().items())


def test_diffusers_reads_the_single_file(workshop: Workshop, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    stage, shape, path = workshop.stage, shapes.SD, tmp_path / "model.safetensors"
    made = pipeline(shape, shapes.make_unet(shape, 1), stage.vae, stage.tokenizer, stage.encoders(False))
    write_model(path, shape, made.unet, stage.vae, stage.tokenizer, stage.encoders(False))
    config = {"config": str(path.with_suffix("")), "local_files_only": True, "safety_checker": None, "requires_safety_checker": False}
    loaded = StableDiffusionPipeline.from_single_file(str(path), **config)
    for part in ("unet", "vae", "text_encoder"):
        theirs, ours = getattr(loaded, part).state_dict(), getattr(made, part).state_dict()
        assert all(torch.equal(t, theirs[name]) for name, t in ours.items() if "position_ids" not in name), part


@pytest.mark.parametrize(("whole", "cut"), [(shapes.SD, shapes.SD_BLOCKS), (shapes.XL, shapes.XL_BLOCKS)], ids=["sd", "xl"])
def test_the_true_block_map_is_found(workshop: Workshop, whole: shapes.Shape, cut: shapes.Shape, tmp_path: Path) -> None:
    stage, source = workshop.stage, shapes.make_unet(whole, 1)
    target = cut_blocks(source, cut)
    for name, shape, unet in (("source", whole, source), ("target", cut, target)):
        write_model(tmp_path / f"{name}.safetensors", shape, unet, stage.vae, stage.tokenizer, stage.encoders(shape.xl))
    with open_checkpoint(tmp_path / "source.safetensors") as a, open_checkpoint(tmp_path / "target.safetensors") as b:
        layers = [layer.id for layer in a.layers.values() if layer.spec.unit.kind == "transformer" and layer.spec.kind == LayerKind.LINEAR]
        found = {m.target.path: m.source.path for m in relate(a, b, layers).matching.layers if m.target.component == "unet"}
    assert found
    assert all(true_block(cut, target) == source for target, source in found.items())


def test_a_width_cut_keeps_norm_groups_and_heads() -> None:
    source = shapes.make_unet(shapes.SD, 1)
    target, ends = cut_width(source, shapes.SD_WIDTH)
    old, new = source.state_dict(), target.state_dict()
    assert old.keys() == new.keys()
    for kept in ends.values():
        assert torch.equal(kept.view(-1, KEEP) // CELL, torch.arange(len(kept) // KEEP)[:, None].expand(-1, KEEP))
    rows = ends["up_blocks.1"]
    assert torch.equal(new["conv_out.weight"], old["conv_out.weight"][:, rows])
    assert torch.equal(new["conv_norm_out.weight"], old["conv_norm_out.weight"][rows])


@pytest.mark.parametrize("kind", KINDS)
def test_a_trained_file_is_what_was_trained(workshop: Workshop, kind: Kind, tmp_path: Path) -> None:
    """The file, read back by the project, changes the model as the adapter did in training; the model itself is left alone."""
    member, stage = Member("sd", 0, "source"), workshop.stage
    path, unet, held = workshop.model(member), workshop.unet(member), workshop.held_out("light", "hue")
    before = {name: t.clone() for name, t in unet.state_dict().items()}
    plain = stage.held_out_loss(unet, held, False)
    out = tmp_path / f"{kind}.safetensors"
    with open_checkpoint(path) as base:
        train_adapter(stage, member.shape, unet, kind, workshop.style("light", "hue"), 4, 0, base, out)
        assert all(torch.equal(before[name], t) for name, t in unet.state_dict().items())
        assert stage.held_out_loss(unet, held, False) == plain
        adapter, deltas = read_adapter(out, base.arch), own_deltas(out, base)
    assert (adapter.native is not None) == kind.startswith("lorax")
    assert not adapter.unmatched
    with applied(unet, deltas):
        assert stage.held_out_loss(unet, held, False) < plain
    assert all(torch.equal(before[name], t) for name, t in unet.state_dict().items())


def test_by_name_and_copy_differ_where_blocks_were_cut(workshop: Workshop) -> None:
    source, target = Member("sd", 0, "source"), Member("sd", 0, "blocks")
    pair = Pair(workshop.model(source), workshop.model(target))
    named = by_name(pair, workshop.adapter(source, "lora", "hue")).deltas
    pair.close()
    assert named is not None
    assert {i.path for i in named} < {spec.id.path for spec in shapes.SD.arch.layers()}


def test_a_run_goes_on_where_it_was_stopped(workshop: Workshop, tmp_path: Path) -> None:
    choice = Choice(("sd",), (0,), ("lora",), ("hue",), ("none", "copy"), (("sd", "source", "blocks"),))
    said: list[str] = []
    Evaluation(workshop, Results(tmp_path, TINY.adapter), said.append).run(choice)
    first = (tmp_path / "rows.jsonl").read_text(encoding="utf-8")
    rows = Results(tmp_path, TINY.adapter).rows()
    assert len(rows) == 2
    assert all({"command", "commit"} <= json.loads(line).keys() for line in first.splitlines())
    Evaluation(workshop, Results(tmp_path, TINY.adapter), said.append).run(choice)
    assert (tmp_path / "rows.jsonl").read_text(encoding="utf-8") == first


def test_adapters_of_other_steps_are_another_table(tmp_path: Path) -> None:
    short, long = Results(tmp_path, 100), Results(tmp_path, 200)
    short.add(made("none", 1.0))
    long.add(made("none", 2.0))
    assert [[row.loss for row in results.rows().values()] for results in (short, long)] == [[1.0], [2.0]]
    assert [other.steps for other in long.others()] == [100]
    write_report(long, tmp_path)
    assert "adapters 200" in (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "adapters 100" in (tmp_path / "results-100-steps.md").read_text(encoding="utf-8")


def rows_of(*rows: Row) -> dict[tuple[str, int, str, str, str, str, str], Row]:
    return {row.key: row for row in rows}


def made(column: str, loss: float | None, target: str = "blocks", style: str = "hue") -> Row:
    return Row("sd", 0, "source", target, style, "" if column == "none" else "lora", column, loss)


def test_recovered_is_the_share_of_the_trained_gain() -> None:
    rows = rows_of(made("none", 1.0), made("trained", 0.6), made("copy", 0.7), made("auto", None), made("by name", 1.2))
    assert recovered(rows, made("copy", 0.7)) == pytest.approx(0.75)
    assert recovered(rows, made("by name", 1.2)) == pytest.approx(-0.5)
    assert recovered(rows, made("trained", 0.6)) == pytest.approx(1.0)
    assert recovered(rows, made("auto", None)) is None
    assert recovered(rows_of(made("none", 1.0), made("trained", 0.95), made("copy", 0.96)), made("copy", 0.96)) is None
    group = ("sd", "source", "blocks", "lora")
    assert table(rows, "recovered")[group]["copy"].mean == pytest.approx(0.75)
    paired = difference(rows, group, "copy", "by name")
    assert paired is not None
    assert paired.mean == pytest.approx(1.25)


def test_spread_and_rank_correlation_agree_with_others() -> None:
    from scipy.stats import spearmanr

    values = [0.3, 0.9, 0.5, 0.5]
    summary = cell(values)
    assert summary is not None
    assert (summary.mean, summary.sd, summary.count) == (pytest.approx(0.55), pytest.approx(torch.tensor(values).std().item()), 4)
    other = [2.0, 5.0, 1.0, 3.0]
    found = rank_correlation(zip(values, other, strict=True))
    assert found is not None
    assert found[0] == pytest.approx(spearmanr(values, other).statistic)
    assert rank_correlation([(1.0, 1.0)] * 3) is None


def test_predictors_rank_pairs_by_what_was_recovered() -> None:
    shares = {"blocks": 0.9, "width": 0.4, "finetune": 0.7, "independent": -0.2}
    rows = rows_of(*(made(c, x, target) for target, s in shares.items() for c, x in (("none", 1.0), ("trained", 0.5), ("copy", 1 - s / 2))))
    pairs = [
        Relatedness("sd", 0, "source", target, rho=share, similarity=-share, atc=1 - share, atc_balanced=None)
        for target, share in shares.items()
    ]
    found = predictors(rows, {pair.key: pair for pair in pairs}, "copy")
    assert found["ρ"] == (pytest.approx(1.0), 4)
    assert found["similarity Φ̂"][0] == pytest.approx(-1.0)
    assert found["−ATC, source free"][0] == pytest.approx(1.0)
    assert "−ATC, balanced" not in found


def test_training_lowers_the_loss(workshop: Workshop) -> None:
    stage: Stage = workshop.stage
    pictures = stage.material(64, 1)
    losses: list[float] = []
    train_source(stage, shapes.SD, 3, pictures, 6, lambda step, steps, loss: losses.append(loss))
    assert losses[-1] < losses[0]


def test_the_aim_is_the_sources_effect_upon_the_targets_own_prediction() -> None:
    class Doubling(torch.nn.Module):
        def __init__(self, weight: float) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1, bias=False)
            torch.nn.init.constant_(self.layer.weight, weight)

        def forward(self, x: torch.Tensor, *, twice: bool) -> tuple[torch.Tensor]:
            return ((2 if twice else 1) * self.layer(x),)

    target, source, deltas = Doubling(10.0), Doubling(3.0), {LayerId(Component.UNET, "layer"): torch.tensor([[0.5]])}
    (made,) = Aim(target, source, deltas)(torch.ones(1, 1), twice=True)
    assert made.item() == 2 * (10.0 + 0.5)
    assert (source.layer.weight.item(), target.layer.weight.item()) == (3.0, 10.0), "both are as they were"
