"""What came of a distillation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lorax.errors import one_line
from lorax.render.markdown import table, text
from lorax.render.page import page, section, tile, tiles, verdict_card
from lorax.render.page import table as html_table
from lorax.render.terminal import columns
from lorax.render.words import duration
from lorax.train.distill.measure import FAIR, GOOD, in_words


@dataclass(frozen=True)
class DistillReport:
    """Figures are of samples that were not learned from."""

    adapter_name: str
    source_name: str
    target_name: str
    output: str
    steps: int
    """Training steps"""
    seed: int
    rank: int
    modules: int
    """Layers written"""
    learning_rate: float
    start: str
    """The weights-only transfer it started from, and why"""
    missed_start: float
    """Share of the effect that the start misses: 1 where it shows nothing of it; more where it does something else"""
    missed: float
    """The same after training"""
    cosine_start: float
    """Effect cosine of the start, on the source's own samples"""
    cosine: float
    losses: tuple[float, ...] = field(repr=False)
    """Of each step: the share of the effect that its batch missed"""
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """In a few words, by the effect cosine."""
        return in_words(self.cosine)

    @property
    def tone(self) -> str:
        """The verdict's: ``good``, ``weak`` or ``bad``."""
        return "good" if self.cosine >= GOOD else "weak" if self.cosine >= FAIR else "bad"


def distill_to_json(report: DistillReport) -> dict[str, Any]:
    """One JSON object."""
    return {
        "command": "transfer",
        "method": "distill",
        "trained": True,
        **{name: value for name, value in vars(report).items() if name not in ("losses", "notes")},
        "verdict": report.verdict,
        "losses": [round(x, 6) for x in report.losses],
        "notes": list(report.notes),
    }


def distill_to_text(report: DistillReport) -> str:
    """For a terminal, without a final newline."""
    return columns(_rows(report))


def distill_to_markdown(report: DistillReport) -> str:
    """Ending in a newline."""
    title = f"# {text(report.adapter_name)} → {text(report.target_name)}, distilled by training"
    return (
        "\n\n".join([title, f"**{text(report.verdict)}.**", table(("", ""), _rows(report)), "## Loss", table(_LOSS, _losses(report))])
        + "\n"
    )


def distill_to_html(report: DistillReport) -> str:
    """A page of its own."""
    return page(
        f"{report.adapter_name} → {report.target_name}, distilled by training",
        verdict_card(
            report.verdict, report.tone, f"Trained for {report.steps} steps on the two models' own samples; no pictures were needed."
        ),
        tiles(
            tile(f"{report.cosine:.2f}", "effect cosine", f"1 is the same effect; {report.cosine_start:.2f} before training"),
            tile(f"{max(0.0, 1 - report.missed):.0%}", "of the effect shown", "measured on samples that were not learned from"),
        ),
        section("What was done", html_table(("", ""), _rows(report))),
        section("Loss", html_table(_LOSS, _losses(report), numeric=(0, 1))),
    )


_LOSS = ("step", "share of the effect that is missed")


def _losses(report: DistillReport) -> list[tuple[str, str]]:
    """The mean of every tenth of the run."""
    size = max(1, len(report.losses) // 10)
    parts = [report.losses[i : i + size] for i in range(0, len(report.losses), size)]
    return [(str(i * size + len(part)), f"{sum(part) / len(part):.3f}") for i, part in enumerate(parts)]


def _rows(report: DistillReport) -> list[tuple[str, str]]:
    return [
        ("adapter", one_line(report.adapter_name)),
        ("from", one_line(report.source_name)),
        ("to", one_line(report.target_name)),
        ("method", f"distill: {report.steps} training steps on the two models' own samples, seed {report.seed}"),
        ("start", one_line(report.start)),
        ("effect missed", f"{report.missed_start:.1%} before training, {report.missed:.1%} after, on samples that were not learned from"),
        ("effect cosine", f"{report.cosine_start:.2f} before training, {report.cosine:.2f} after, on the source's own samples"),
        ("verdict", report.verdict),
        ("modules", f"{report.modules} written at rank {report.rank}"),
        *(("note", one_line(note)) for note in report.notes),
        ("time", duration(report.seconds)),
        ("wrote", one_line(report.output)),
    ]
