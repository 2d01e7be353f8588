"""What the distillation panel does: training, for pairs of bases that weights alone do not bridge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lorax.actions import check_output
from lorax.errors import Cancelled, LoraxError, SourceNeeded
from lorax.render.markup import tag
from lorax.render.page import definitions, verdict_card
from lorax.render.views import told_view, view
from lorax.render.words import duration, sentence
from lorax.transfer.types import Progress
from lorax.ui.choices import Options
from lorax.ui.transferring import Transfers
from lorax.ui.wording import in_words_of_a_page

if TYPE_CHECKING:
    from lorax.train.distill import DistillSettings

BEFORE = "carrying by weights, for a start"
"""What is said of all that comes before a model is loaded."""


def distil(
    transfers: Transfers, adapter: str, source: str, target: str, options: Options, steps: int, progress: Progress
) -> Iterator[tuple[str, list[Path]]]:
    """(view, files) of a LoRA that was trained on the target to do what the adapter does on its source.

    A training that was stopped is gone on with, where nothing was changed since.
    """
    from lorax.train.distill import DistillSettings, can_resume, distill

    if steps < 1:
        raise LoraxError("the number of training steps is a whole number from 1")
    place = transfers.place
    entry, base = place.adapter(adapter), place.base(target)
    spec, how = transfers.spec_of(adapter, source, progress)
    if spec is None:
        raise SourceNeeded(how or "distillation runs the adapter on its own base: choose it as the source")
    output = place.folder(options.folder) / f"{entry.path.stem}-{base.path.stem}-distilled.safetensors"
    check_output(output, [entry.path, base.path], options.overwrite)
    chosen = options.settings
    settings = DistillSettings(
        steps=steps,
        rank=chosen.out_rank,
        only=chosen.only,
        skip=chosen.skip,
        strength=chosen.strength,
        format=options.format,
        dtype=options.dtype,
        device=chosen.device,
        overwrite=options.overwrite,
        force=chosen.force,
    )
    settings = replace(settings, resume=can_resume(entry.path, spec, base.spec, output, settings))
    tell, last = of_the_whole(settings, progress), ("", 0, 1)

    def told(text: str, done: int, total: int) -> None:
        nonlocal last
        last = text, done, total
        tell(*last)

    def cancelled() -> bool:
        try:
            tell(*last)
        except Cancelled:
            return True
        return False

    try:
        report = distill(entry.path, spec, base.spec, output, settings, told, cancelled=cancelled)
    except Cancelled as error:
        yield told_view(in_words_of_a_page(f"{base.path.stem}: {error}")), []
        return
    place.list_again()
    facts = [
        ("of the effect that is missed", f"{report.missed:.0%}, at the start {report.missed_start:.0%}"),
        ("direction of the effect (cosine)", f"{report.cosine:.2f}, at the start {report.cosine_start:.2f}"),
        ("training", f"{report.steps} steps, rank {report.rank}, {report.modules} modules"),
        ("written", Path(report.output).name),
    ]
    made = f"{report.adapter_name} was learned on {report.target_name}, in {duration(report.seconds)}."
    card = verdict_card(sentence(report.verdict), report.tone, made)
    notes = tag("ul", *(tag("li", note) for note in report.notes), class_="notes") if report.notes else ""
    yield view(card, definitions(facts), notes), [Path(report.output)]


def of_the_whole(settings: DistillSettings, progress: Progress) -> Progress:
    """`progress` whose counts are of the whole distillation: each of its phases takes as long as its passes of a UNet, and a pass of
    training as long as three."""
    from lorax.train.distill.rate import TRIED, trial_steps

    s = settings
    sampling, measuring, step = 2 * s.samples * s.sampling_steps, 3 * s.samples * s.points, 3 * s.batch_size
    costs = {
        "sampling from the target": sampling,
        "sampling from the source": sampling,
        "sampling from the source with the adapter": sampling,
        "measuring the adapter's effect": 2 * measuring,
        "asking the target": measuring,
        "measuring what the target shows": measuring // 4,
        "trying learning rates": len(TRIED) * trial_steps(s.steps) * step,
        "training": s.steps * step,
    }
    slight = sum(costs.values()) // 20
    costs = {BEFORE: slight, **costs, "hashing the target for its metadata": slight}

    def tell(text: str, done: int, total: int) -> None:
        phase, names = text if text in costs else BEFORE, list(costs)
        passes = sum(costs[name] for name in names[: names.index(phase)]) + costs[phase] * done / max(1, total)
        progress(phase, round(1000 * passes / sum(costs.values())), 1000)

    return tell
