"""The command: ``python -m benchmarks.quality --size ci|full``, and the parts of it."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.quality.adapters import KINDS
from benchmarks.quality.family import FULL, Workshop
from benchmarks.quality.pictures import TABLE_STYLES

RESULTS = Path("docs/quality")
WORK = Path("build/quality")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    torch.set_num_threads(arguments.threads)
    if arguments.size == "ci":
        from benchmarks.quality.ci import check_ranking

        return check_ranking(arguments.work / "ci", say())
    from benchmarks.quality.evaluate import Choice, Evaluation
    from benchmarks.quality.report import write_report
    from benchmarks.quality.rows import Results
    from benchmarks.quality.sample import write_sample
    from benchmarks.quality.showcase import write_grids

    results = Results(arguments.results, FULL.adapter)
    if not arguments.report_only:
        evaluation = Evaluation(Workshop(arguments.work / "full", FULL, say()), results, say())
        if arguments.sample:
            write_sample(evaluation.workshop, arguments.sample)
            return 0
        if arguments.grids:
            write_grids(evaluation, arguments.results)
        else:
            evaluation.run(Choice(arguments.family, arguments.seed, arguments.kind, arguments.style, arguments.column))
    write_report(results, arguments.results)
    return 0


def parser() -> argparse.ArgumentParser:
    """What can be asked for; by default everything that is not there yet."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    made.add_argument("--size", choices=("ci", "full"), default="full", help="ci: one family, minutes, checks the ranking; full: the table")
    made.add_argument("--work", type=Path, default=WORK, help="models and adapters are made here, and found again (default %(default)s)")
    made.add_argument("--results", type=Path, default=RESULTS, help="rows are appended and the report written here (default %(default)s)")
    made.add_argument("--family", nargs="+", default=["sd", "xl"], choices=("sd", "xl"))
    made.add_argument("--seed", nargs="+", type=int, default=[0, 1, 2], help="base seeds; 2 is the one held aside")
    made.add_argument("--kind", nargs="+", default=list(KINDS), choices=KINDS)
    made.add_argument("--style", nargs="+", default=list(TABLE_STYLES))
    made.add_argument("--column", nargs="+", help="by default every column that can be filled")
    made.add_argument("--report-only", action="store_true", help="write tables and plots from the rows that are there")
    made.add_argument("--grids", action="store_true", help="draw the sample grids of the documentation instead")
    made.add_argument("--sample", type=Path, metavar="DIR", help="write the family of the converter's demo there instead")
    made.add_argument("--threads", type=int, default=1, help="the models are small: more than one or two do not help")
    return made


class say:  # noqa: N801 -- it is called like a function
    """Progress on standard error, each line with the minutes since the start."""

    def __init__(self) -> None:
        self.start = time.monotonic()

    def __call__(self, text: str) -> None:
        minutes = (time.monotonic() - self.start) / 60
        print(f"[{minutes:6.1f} min] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
