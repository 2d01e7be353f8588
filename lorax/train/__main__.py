"""``python -m lorax.train``. Exit codes: 0 done, 1 an error in one line, 2 usage, 130 stopped by the user after saving."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence

from lorax.train.cli import build_parser, settings_of

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Train as `argv` says (None: the process's own)."""
    try:
        arguments = build_parser().parse_args(argv)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else USAGE
    from lorax.errors import Cancelled, LoraxError

    try:
        _train(arguments)
    except Cancelled as error:
        return _say(str(error), INTERRUPTED)
    except LoraxError as error:
        return _say(str(error), FAILED)
    except KeyboardInterrupt:
        return _say("stopped at once; the last saved state is still there", INTERRUPTED)
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        return _say("out of GPU memory: use --gradient-checkpointing, a smaller --batch-size or --resolution", FAILED)
    return DONE


def _train(arguments: Namespace) -> None:
    import torch

    from lorax.checkpoint import open_checkpoint
    from lorax.train.standalone import run_training

    gpu = torch.cuda.is_available() and arguments.device != "cpu"
    precision = ("bf16" if torch.cuda.is_bf16_supported() else "fp16") if gpu else "no"
    with open_checkpoint(arguments.base) as base:
        family = base.arch.family
    run = run_training(settings_of(arguments, family, precision))
    if run.first:
        last = run.losses[-100:]
        mean = sum(last) / len(last) if last else float("nan")
        print(f"wrote {arguments.output}: {run.step} steps, loss {mean:.4f} over the last {len(last)}")


def _say(message: str, code: int) -> int:
    from lorax.errors import one_line

    print(f"lorax.train: {one_line(message)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
