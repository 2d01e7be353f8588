"""``python -m converter`` and ``lorax-convert``: parse, dispatch, and turn every outcome into an exit code.

0 done · 1 an error of ours, one line · 2 usage · 3 refused as not transferable · 130 interrupted, nothing half-written.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from converter.cli import build_parser
from converter.process import settle

DONE, FAILED, USAGE, REFUSED, INTERRUPTED = 0, 1, 2, 3, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; `argv` without the program's name, None for the process's own."""
    for stream in (sys.stdout, sys.stderr):
        _never_fail_on_a_letter(stream)
    try:
        arguments = build_parser().parse_args(argv)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else USAGE
    try:
        code = _run(arguments, own_process=argv is None)
        sys.stdout.flush()
    except BrokenPipeError:
        return _reader_went_away()
    except KeyboardInterrupt:
        return complain("interrupted; nothing was left half-written", INTERRUPTED)
    return code


def _run(arguments: Namespace, own_process: bool) -> int:
    """Call the command's module, which is imported only now, so that ``--help`` needs no torch."""
    from lorax import Cancelled, LoraxError, NotTransferable

    try:
        command = importlib.import_module(arguments.module)
        if own_process:
            settle()
        return int(command.run(arguments))
    except NotTransferable as error:
        return complain(str(error), REFUSED)
    except Cancelled as error:
        return complain(str(error), INTERRUPTED)
    except LoraxError as error:
        return complain(str(error), FAILED)
    except BrokenPipeError:
        raise
    except MemoryError:
        return complain("out of memory: close other programs, or take fewer layers at a time with --only", FAILED)
    except OSError as error:
        where = f"'{error.filename}': " if error.filename else ""
        return complain(f"{where}{error.strerror or error}", FAILED)
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        return complain("out of GPU memory: use --device cpu", FAILED)


def complain(message: str, code: int) -> int:
    """One line on stderr; gives the exit code back."""
    from lorax import one_line

    with contextlib.suppress(OSError):
        print(f"lorax-convert: {one_line(message)}", file=sys.stderr)
    return code


def _never_fail_on_a_letter(stream: Any) -> None:
    """A terminal that lacks a letter gets an escape in its place (Windows' cp1252 has no arrow)."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        stream.reconfigure(errors="backslashreplace")


def _reader_went_away() -> int:
    """``lorax-convert inspect … | head`` is no error; the interpreter's own last flush must not become one either."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return DONE


if __name__ == "__main__":
    sys.exit(main())
