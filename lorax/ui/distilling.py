"""What the distillation panel does: training, for pairs of bases that weights alone do not bridge."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lorax.actions import check_output
from lorax.errors import Cancelled, LoraxError, SourceNeeded
from lorax.render.markup import tag
from lorax.render.page import definitions, verdict_card
from lorax.render.views import view
from lorax.render.words import duration, sentence
from lorax.transfer.types import Progress
from lorax.ui.choices import Options
from lorax.ui.transferring import Transfers


def distil(
    transfers: Transfers, adapter: str, source: str, target: str, options: Options, steps: int, progress: Progress
) -> Iterator[tuple[str, list[Path]]]:
    """(view, files) of a LoRA that was trained on the target to do what the adapter does on its source."""
    from lorax.train.distill import DistillSettings, distill

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
    last = ["", 0, 1]

    def tell(text: str, done: int, total: int) -> None:
        last[:] = [text, done, total]
        progress(text, done, total)

    def cancelled() -> bool:
        try:
            progress(str(last[0]), int(last[1]), int(last[2]))
        except Cancelled:
            return True
        return False

    report = distill(entry.path, spec, base.spec, output, settings, tell, cancelled=cancelled)
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
