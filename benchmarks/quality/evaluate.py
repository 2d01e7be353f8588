"""Filling the table: for each adapter and target every column, skipping what is there already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.quality.adapters import KINDS, Deltas, Kind, applied
from benchmarks.quality.aim import AIM, Aim
from benchmarks.quality.captions import EMPTY
from benchmarks.quality.columns import COLUMNS, SCALES, Column, Pair, own_deltas
from benchmarks.quality.family import Member, Say, Workshop
from benchmarks.quality.judge import Judge, make_judge
from benchmarks.quality.pictures import CAPTIONS, TABLE_STYLES
from benchmarks.quality.rows import Relatedness, Results, Row
from benchmarks.quality.stage import STEPS, Batch
from lorax import Factors, open_checkpoint, read_adapter, relate

PAIRS = (
    ("sd", "source", "blocks"),
    ("sd", "source", "width"),
    ("sd", "source", "finetune"),
    ("sd", "source", "independent"),
    ("xl", "source", "blocks"),
    ("xl", "blocks", "source"),
    ("xl", "source", "finetune"),
    ("xl", "source", "independent"),
)
_SAMPLED = ("copy", "project", "align", "auto", "trained", "distill")
"""Columns whose samples are looked at for the kinds beside ordinary LoRA; for that one all are."""


@dataclass(frozen=True)
class Choice:
    """What part of the table to fill."""

    families: Sequence[str]
    seeds: Sequence[int]
    kinds: Sequence[Kind] = KINDS
    styles: Sequence[str] = TABLE_STYLES
    columns: Sequence[str] | None = None
    """None: all that the project can fill."""
    pairs: Sequence[tuple[str, str, str]] = PAIRS

    def cells(self) -> Iterator[tuple[str, int, str, str, Kind]]:
        """(family, seed, source, target, kind): all pairs by one kind before the next kind."""
        for kind in self.kinds:
            for family, source, target in self.pairs:
                for seed in self.seeds:
                    if family in self.families:
                        yield family, seed, source, target, kind


class Evaluation:
    """A run over the chosen cells."""

    def __init__(self, workshop: Workshop, results: Results, say: Say) -> None:
        self.workshop, self.results, self.say = workshop, results, say
        self.stage, self.effort = workshop.stage, workshop.effort
        self.done = results.rows()
        self._judge: Judge | None = None

    def run(self, choice: Choice) -> None:
        """Fill every chosen cell that is empty."""
        for family, seed, source, target, kind in choice.cells():
            members = Member(family, seed, source), Member(family, seed, target)
            wanted = choice.columns or (*COLUMNS, *(f"copy × {a}" for a in SCALES), "none", "trained", AIM, "distill")
            todo = [(style, [c for c in wanted if self._open(members, style, kind, c)]) for style in choice.styles]
            if not any(columns for _, columns in todo):
                continue
            pair = Pair(self.workshop.model(members[0]), self.workshop.model(members[1]))
            try:
                for style, columns in todo:
                    self._cell(pair, members, kind, style, columns)
                self._relatedness(pair, members, kind, choice.styles[0])
            finally:
                pair.close()

    def _open(self, members: tuple[Member, Member], style: str, kind: Kind, column: str) -> bool:
        return self._row(members, style, kind, column).key not in self.done

    def _row(self, members: tuple[Member, Member], style: str, kind: Kind, column: str) -> Row:
        source, target = members
        return Row(source.family, source.seed, source.name, target.name, style, "" if column == "none" else kind, column)

    def _cell(self, pair: Pair, members: tuple[Member, Member], kind: Kind, style: str, columns: Sequence[str]) -> None:
        if not columns:
            return
        source, target = members
        path = self.workshop.adapter(source, kind, style)
        seen: dict[tuple[float, ...], Row] = {}
        own = own_deltas(path, pair.source)
        effect = self._effect(source, own)
        for column in columns:
            if column == AIM:
                aim = Aim(self.workshop.unet(target), self.workshop.unet(source), own)
                self._add(self._figures(self._row(members, style, kind, column), target, style, aim, sampled=True))
                continue
            made = self._column(pair, members, kind, style, path, column)
            row = replace(self._row(members, style, kind, column), note=made.note, verdict=made.verdict)
            if made.deltas is not None:
                digest = _digest(made.deltas)
                if digest not in seen:
                    sampled = kind == "lora" or column in _SAMPLED
                    seen[digest] = self._measured(row, target, style, made.deltas, effect, sampled)
                figures = seen[digest]
                row = replace(figures, column=column, kind=row.kind, note=row.note, verdict=row.verdict)
            self._add(row)

    def _add(self, row: Row) -> None:
        self.results.add(row)
        self.done[row.key] = row
        self.say(f"{row.family}-{row.seed} {row.source} → {row.target}, {row.style}, {row.kind}, {row.column}: {_short(row)}")

    def _column(self, pair: Pair, members: tuple[Member, Member], kind: Kind, style: str, path: Path, column: str) -> Column:
        target = members[1]
        if column == "none":
            return Column({})
        if column == "trained":
            trained = self.workshop.adapter(self._home(target), kind, style)
            return Column(own_deltas(trained, pair.target))
        if column.startswith("copy × "):
            made, scale = COLUMNS["copy"](pair, path), float(column.removeprefix("copy × "))
            deltas = None if made.deltas is None else {i: scale * d for i, d in made.deltas.items()}
            return replace(made, deltas=deltas)
        if column == "distill":
            return self.distilled(members, kind, style, path)
        return COLUMNS[column](pair, path)

    def _home(self, member: Member) -> Member:
        """The stranger is the same for all seeds, and so are its adapters."""
        return replace(member, seed=99) if member.name == "independent" else member

    def distilled(self, members: tuple[Member, Member], kind: Kind, style: str, path: Path) -> Column:
        """``--method distill`` on the two models' own samples of the captions."""
        from lorax.train.distill import DistillSettings, distill

        source, target = (self.workshop.model(m) for m in members)
        out = self.workshop.folder / "distilled" / f"{members[0].family}-{members[0].seed}-{path.stem}-{members[1].name}.safetensors"
        prompts = self.workshop.folder / "prompts.txt"
        prompts.write_text("\n".join(CAPTIONS[::3]) + "\n", encoding="utf-8")
        if not out.exists():
            out.parent.mkdir(exist_ok=True)
            self.say(f"distilling {kind} for {style}: {members[0]} → {members[1].name}")
            settings = DistillSettings(
                steps=self.effort.distill_adapter,
                prompts=prompts,
                guidance=2.0,
                precision="no",
                device="cpu",
                dtype="fp32",
                batch_size=16,
                rank=8,
            )
            distill(path, source.with_suffix(""), target.with_suffix(""), out, settings)
        with open_checkpoint(target) as base:
            adapter = read_adapter(out, base.arch)
        factors = {i: module.factors() for i, module in adapter.modules.items()}
        return Column({i: f.dense() for i, f in factors.items() if isinstance(f, Factors)})

    # figures

    def _measured(self, row: Row, target: Member, style: str, deltas: Deltas, effect: Tensor, sampled: bool) -> Row:
        unet = self.workshop.unet(target)
        plain = self._predictions(target, row)
        with applied(unet, deltas):
            change = self._predictions(target, row) - plain
            row = replace(row, effect_cosine=_cosine(effect, change) if deltas else None)
            return self._figures(row, target, style, unet, sampled)

    def _figures(self, row: Row, target: Member, style: str, unet: Any, sampled: bool) -> Row:
        """Held-out loss of `unet` in the target's place, and what its samples look like."""
        xl = target.shape.xl
        row = replace(row, loss=self.stage.held_out_loss(unet, self.workshop.held_out(target.domain, style), xl))
        if not (sampled and self.effort.samples):
            return row
        caption = torch.randint(0, EMPTY, (self.effort.samples,), generator=torch.Generator().manual_seed(5))
        latents = self.stage.sample(unet, caption, xl, seed=11, steps=12)
        opinion = self.judge.opinion(self.stage, latents, caption, target.domain, style)
        return replace(row, style_accuracy=opinion.style, content=opinion.content, frechet=opinion.frechet)

    @property
    def judge(self) -> Judge:
        if self._judge is None:
            self.say("training the judge")
            self._judge = make_judge(self.stage, self.workshop.folder / "judge.pt", self.effort.judge)
        return self._judge

    def _effect(self, source: Member, deltas: Deltas) -> Tensor:
        """What the adapter changes in the source's predictions."""
        unet = self.workshop.unet(source)
        plain = self._predict(source, source)
        with applied(unet, deltas):
            return self._predict(source, source) - plain

    def _predictions(self, target: Member, row: Row) -> Tensor:
        return self._predict(target, Member(row.family, row.seed, row.source))

    @torch.no_grad()
    def _predict(self, member: Member, source: Member) -> Tensor:
        """Predictions at noisy versions of the source's own samples."""
        batch = self._own_samples(source)
        return self.stage.predict(self.workshop.unet(member), batch, member.shape.xl)

    def _own_samples(self, source: Member, count: int = 32) -> Batch:
        cache = self.__dict__.setdefault("_points", dict[Member, Batch]())
        if source not in cache:
            generator = torch.Generator().manual_seed(21)
            caption = torch.randint(0, EMPTY, (count,), generator=generator)
            latents = self.stage.sample(self.workshop.unet(source), caption, source.shape.xl, seed=22)
            times = torch.randint(0, STEPS, (count,), generator=generator)
            cache[source] = self.stage.noised(latents, torch.randn(latents.shape, generator=generator), times, caption)
        return cache[source]

    def _relatedness(self, pair: Pair, members: tuple[Member, Member], kind: Kind, style: str) -> None:
        source, target = members
        key = source.family, source.seed, source.name, target.name
        if key in self.results.pairs():
            return
        adapter = read_adapter(self.workshop.adapter(source, kind, style), pair.source.arch)
        relation = relate(pair.source, pair.target, sorted(adapter.modules), method="align")
        values, atc = list(relation.scores.layers.values()), relation.scores.atc
        rho = [s.cosine for s in values if s.cosine is not None]
        similarity = [s.similarity for s in values if s.similarity is not None]
        aligned = relation.aligned.scores.layers.values() if relation.aligned else ()
        self.results.add(
            Relatedness(
                *key,
                rho=_mean(rho),
                similarity=_mean(similarity),
                atc=None if atc is None else (atc.left + atc.right) / 2,
                atc_balanced=None if atc is None else (atc.balanced_left + atc.balanced_right) / 2,
                aligned_rho=_mean([s.relation for s in aligned if s.relation is not None]),
            )
        )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _cosine(a: Tensor, b: Tensor) -> float:
    norm = float(a.norm() * b.norm())
    return float((a * b).sum()) / norm if norm else 0.0


def _digest(deltas: Deltas) -> tuple[float, ...]:
    """Equal for equal deltas; a cheap name for them."""
    return tuple(float(f(deltas[i].double())) for i in sorted(deltas) for f in (torch.sum, torch.linalg.vector_norm))


def _short(row: Row) -> str:
    if row.loss is None:
        return row.note or "nothing"
    seen = "" if row.style_accuracy is None else f", style {row.style_accuracy:.2f}, content {row.content:.2f}, Fréchet {row.frechet:.1f}"
    return f"loss {row.loss:.4f}{seen}"
