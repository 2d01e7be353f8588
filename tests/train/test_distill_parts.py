"""The laws of distillation's parts: branches, conversions, prompts, figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lorax.adapter import Adapter, Offset
from lorax.archs import by_name
from lorax.errors import Cancelled, FileError, MissingPackage
from lorax.layers import Component, LayerId
from lorax.linalg import Factors
from lorax.train import packages
from lorax.train.distill import effect_cosine, missed_share, relative_strength
from lorax.train.distill.branches import attached
from lorax.train.distill.job import Ticker
from lorax.train.distill.learn import batches, learning_rate
from lorax.train.distill.points import convert_change, make_points, matching_times
from lorax.train.distill.prompts import generate_prompts, read_prompts, trigger_words
from lorax.train.distill.settings import DistillSettings
from lorax.train.distill.student import Student

LINEAR, CONV, NORM = (LayerId(Component.UNET, name) for name in ("a.linear", "a.conv", "a.norm"))


class Small(nn.Module):
    """A linear layer, a strided convolution, a norm."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.conv, self.norm = nn.Linear(6, 5), nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.LayerNorm(5)
        self.requires_grad_(False)

    @property
    def layers(self) -> dict[LayerId, nn.Module]:
        return {LINEAR: self.linear, CONV: self.conv, NORM: self.norm}

    def forward(self, x: Tensor, picture: Tensor) -> tuple[Tensor, Tensor]:
        return self.norm(self.linear(x)), self.conv(picture)


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(7, 6, generator=generator), torch.randn(2, 3, 9, 9, generator=generator)


def low_rank(out: int, columns: int) -> Factors:
    generator = torch.Generator().manual_seed(out)
    return Factors(torch.randn(out, 2, generator=generator), torch.randn(2, columns, generator=generator))


@pytest.mark.parametrize("dense", [False, True])
def test_an_attached_delta_is_a_merged_one_and_leaves_no_trace(dense: bool) -> None:
    net, deltas = Small(), {LINEAR: low_rank(5, 6), CONV: low_rank(4, 27)}
    given = {i: f.dense() for i, f in deltas.items()} if dense else dict(deltas)
    given[LayerId(Component.UNET, "nowhere")] = low_rank(5, 6)
    before = net(*inputs())
    offsets = {LINEAR: Offset(bias=torch.ones(5)), NORM: Offset(weight=torch.full((5,), 0.5))}
    with attached(net.layers, given, offsets) as missing:
        changed = net(*inputs())
    assert [i.path for i in missing] == ["nowhere"]
    assert all(torch.equal(x, y) for x, y in zip(before, net(*inputs()), strict=True))
    merged = Small()
    merged.linear.weight += deltas[LINEAR].dense()
    merged.linear.bias += 1
    merged.norm.weight += 0.5
    merged.conv.weight += deltas[CONV].dense().reshape(4, 3, 3, 3)
    for x, y in zip(changed, merged(*inputs()), strict=True):
        torch.testing.assert_close(x, y)


def test_a_student_begins_as_its_start_and_as_nothing_without_one() -> None:
    net, start = Small(), {CONV: low_rank(4, 27)}
    student = Student(net.layers, [LINEAR, CONV], 3, start, 0)
    assert [b.up.shape[1] for b in student.branches.values()] == [3, 3]
    with attached(net.layers, start):
        wanted = net(*inputs())
    with student.on():
        got = net(*inputs())
    for x, y in zip(wanted, got, strict=True):
        torch.testing.assert_close(x, y)
    assert student.factors()[LINEAR].rank == 0, "a layer that learned nothing is not written"
    assert student.factors()[CONV].rank == 2
    assert Student(net.layers, [CONV], 1, start, 0).branches[CONV].up.shape[1] == 1, "a start is cut to the rank"


def test_a_change_of_the_noise_is_a_change_of_v() -> None:
    generator = torch.Generator().manual_seed(0)
    x, noise, other = (torch.randn(3, 4, 2, 2, generator=generator, dtype=torch.float64) for _ in range(3))
    signal = torch.tensor([0.9, 0.5, 0.05], dtype=torch.float64)
    a, s = signal.sqrt()[:, None, None, None], (1 - signal).sqrt()[:, None, None, None]
    noisy = a * x + s * noise

    def velocity(predicted: Tensor) -> Tensor:
        """v = a ε − s x₀, with the x₀ that this ε means at `noisy`."""
        return a * predicted - s * (noisy - s * predicted) / a

    change = other - noise
    torch.testing.assert_close(convert_change(change, False, True, signal), (velocity(other) - velocity(noise)), rtol=1e-5, atol=1e-5)
    back = convert_change(convert_change(change, False, True, signal), True, False, signal)
    torch.testing.assert_close(back, change, rtol=1e-5, atol=1e-5)
    assert convert_change(change, True, True, signal) is change


def test_timesteps_match_by_noise() -> None:
    one, other = torch.linspace(0.999, 0.01, 1000), torch.linspace(0.998, 0.0, 500)
    times = torch.tensor([0, 100, 400])
    assert torch.equal(matching_times(one, one, times), times)
    found = matching_times(one, other, times)
    assert (one[found] - other[times]).abs().max() < 1e-3


def test_points_are_spread_and_held_out_by_prompt() -> None:
    settings = DistillSettings(samples=16, points=4, steps=30, batch_size=5)
    points = make_points([torch.zeros(16, 4, 2, 2) + i for i in range(3)], ["p"] * 16, torch.linspace(0.99, 0.01, 1000), settings)
    assert len(points) == 3 * 64
    assert points.origin.bincount().tolist() == [64, 64, 64]
    assert {int(points.sample[i]) % 16 for i in points.where(held=True)} == {7, 15}
    assert len(points.where(held=True, origin=0)) == 8
    assert points.times.min() >= 19
    assert points.times.max() <= 980
    assert points.times.unique().numel() > 180, "no stretch of the schedule is left out"
    assert 0 < int((points.prompt == -1).sum()) < 50
    assert torch.equal(points.noisy([3, 4]), points.noisy([3, 4]))
    seen = batches(points, settings)
    assert [len(b) for b in seen] == [5] * 30
    drawn = {i for batch in seen for i in batch}
    assert not drawn & set(points.where(held=True))
    assert len(drawn) == 150, "each point once before any comes again"
    assert seen == batches(points, settings)


def test_figures() -> None:
    effect = torch.tensor([3.0, 4.0])
    assert effect_cosine(effect, 2 * effect) == pytest.approx(1)
    assert effect_cosine(effect, torch.zeros(2)) == 0
    assert missed_share(effect, effect) == 0
    assert missed_share(effect, torch.zeros(2)) == 1
    assert missed_share(effect, -effect) == 4
    assert relative_strength(effect, effect / 2) == 0.5


def test_the_learning_rate_rises_and_falls_to_nothing() -> None:
    rates = [learning_rate(1.0, step, 50) for step in range(50)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == 1.0
    assert rates.index(1.0) == 9
    assert rates[-1] < 0.01


def test_prompts(tmp_path: Path) -> None:
    made = generate_prompts(40, 0)
    assert made == generate_prompts(40, 0)
    assert len(set(made)) > 35
    assert made != generate_prompts(40, 1)
    mine = tmp_path / "p.txt"
    mine.write_text("\ufeff# mine\n\n  a  cat \na dog\n", encoding="utf-8")
    assert read_prompts(mine) == ["a cat", "a dog"]
    mine.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(FileError, match="UTF-8"):
        read_prompts(mine)


def test_trigger_words_come_from_the_file_itself() -> None:
    def adapter(metadata: dict[str, str]) -> Adapter:
        return Adapter("a", None, "kohya", by_name("sd1"), {}, metadata=metadata)

    tags = {"ss_tag_frequency": json.dumps({"10_x": {"ohwx": 20, "ink style": 18, "tree": 3}})}
    assert trigger_words(adapter(tags)) == ("ohwx", "ink style")
    assert trigger_words(adapter({**tags, "modelspec.trigger_phrase": "sks  cat"})) == ("sks cat",)
    assert trigger_words(adapter({"ss_tag_frequency": "[1]"})) == ()
    assert generate_prompts(2, 0, ("sks",))[0].startswith("sks, ")


def test_a_stop_is_heard_before_the_next_pass() -> None:
    told: list[tuple[str, int, int]] = []
    tick = Ticker(lambda *a: told.append(a), lambda: len(told) == 2).phase("sampling", 5)
    tick()
    tick()
    with pytest.raises(Cancelled, match="stopped while sampling"):
        tick()
    assert told == [("sampling", 0, 5), ("sampling", 1, 5)]


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "EXTRA", ("no_such_package_at_all",))
    with pytest.raises(MissingPackage, match=r"training needs no_such_package_at_all: pip install 'lorax-webui\[train\]'"):
        packages.require_packages()
