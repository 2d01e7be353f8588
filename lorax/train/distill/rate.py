"""The learning rate, found by short trials: widths of models span two orders of magnitude, and so do the rates that suit them."""

from __future__ import annotations

import math
from dataclasses import replace

from lorax.train.distill.learn import Learning, begin, learn
from lorax.train.distill.points import Tick

TRIED = (1.0, 0.3, 0.1, 0.03)
"""Times `Student.largest_learning_rate`"""


def trial_steps(steps: int) -> int:
    """Steps of one trial: a small share of the training, enough to see a rate that is too large."""
    return max(3, min(12, steps // 10))


def find_rate(run: Learning, tick: Tick) -> Learning:
    """The same training at its start again, at the rate whose trial missed least over its second half.

    All trials see the same batches, so their losses can be compared, and none of the samples that the report is measured on.
    """
    start = {name: value.clone() for name, value in run.student.state_dict().items()}
    steps, largest, best = trial_steps(run.settings.steps), run.student.largest_learning_rate(), (math.inf, 0.0)
    for factor in TRIED:
        rate = largest * factor
        trial = _anew(run, rate, steps)
        learn(trial, tick, lambda *_: None, lambda _: None, stop_where_not_finite=False)
        run.student.load_state_dict(start)
        later = trial.losses[steps // 2 :]
        missed = sum(later) / len(later) if len(trial.losses) == steps else math.inf
        best = min(best, (missed, rate))
    return _anew(run, best[1] or largest * TRIED[-1], run.settings.steps)


def _anew(run: Learning, rate: float, steps: int) -> Learning:
    settings = replace(run.settings, learning_rate=rate, steps=steps)
    return begin(run.denoiser, run.student, run.points, run.prompts, run.texts, settings)
