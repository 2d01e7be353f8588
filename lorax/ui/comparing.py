"""What the compare panel does: two bases in detail, or the cost between several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lorax.checkpoint import open_checkpoint
from lorax.device import resolve_device
from lorax.errors import Cancelled, LoraxError
from lorax.render.views import error_view, matrix_view, similarity_view
from lorax.transfer.compare import SimilarityReport, compute_similarity
from lorax.transfer.types import Atc, Progress
from lorax.ui.jobs import line_of
from lorax.ui.transferring import counted
from lorax.ui.workplace import Workplace


def compare(place: Workplace, names: Sequence[str], all_layers: bool, progress: Progress) -> Iterator[str]:
    """The view of two bases; of more, the matrix of costs, which grows cell by cell."""
    chosen = list(dict.fromkeys(names))
    if len(chosen) < 2:
        raise LoraxError("choose two checkpoints to compare, or more for a table of costs")
    if len(chosen) == 2:
        yield similarity_view(_similarity(place, chosen[0], chosen[1], all_layers, progress, align=True))
        return
    pairs = [(i, j) for i in range(len(chosen)) for j in range(len(chosen)) if i != j]
    costs: dict[tuple[int, int], Atc | str] = {}
    errors: list[str] = []
    titles = [name.removesuffix(".safetensors") for name in chosen]
    yield matrix_view(titles, costs)
    for done, (i, j) in enumerate(pairs):
        try:
            atc = _similarity(place, chosen[i], chosen[j], all_layers, counted(progress, done, len(pairs))).scores.atc
            costs[i, j] = atc if atc is not None else "no layer of one has a counterpart of its shape in the other"
        except Cancelled:
            raise
        except Exception as error:
            costs[i, j] = line_of(error)
            errors.append(error_view(f"{chosen[i]} and {chosen[j]}: {line_of(error)}"))
        yield matrix_view(titles, costs) + "".join(errors)


def _similarity(place: Workplace, source: str, target: str, all_layers: bool, progress: Progress, align: bool = False) -> SimilarityReport:
    device = resolve_device(place.host.options().device)
    with open_checkpoint(place.base(source).spec) as a, open_checkpoint(place.base(target).spec) as b:
        if a.arch.family != b.arch.family:
            raise LoraxError(
                f"'{source}' is {a.arch.family}, and '{target}' is {b.arch.family}: their layers have nothing in common, "
                "so choose two checkpoints of one family"
            )
        return compute_similarity(a, b, attention_only=not all_layers, device=device, progress=progress, align=align)
