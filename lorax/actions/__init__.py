"""What the command line and the panels do, as whole steps: both call these functions and add only how they talk.

A step opens files, runs the river of the library, and writes its result under a temporary name first.
"""

from __future__ import annotations

from lorax.actions.batch import Row, Task, check_folder, check_names, failed, work
from lorax.actions.files import base_stem, check_output, default_output, same_file
from lorax.actions.inspection import inspect_file
from lorax.actions.sources import find_source
from lorax.actions.strength import adapter_strengths, checkpoint_strengths
from lorax.actions.transfer import DTYPES, Written, cached_bases, carry_out, settings_record

__all__ = [
    "DTYPES",
    "Row",
    "Task",
    "Written",
    "adapter_strengths",
    "base_stem",
    "cached_bases",
    "carry_out",
    "check_folder",
    "check_names",
    "check_output",
    "checkpoint_strengths",
    "default_output",
    "failed",
    "find_source",
    "inspect_file",
    "same_file",
    "settings_record",
    "work",
]
