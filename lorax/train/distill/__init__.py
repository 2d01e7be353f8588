"""Data-free distillation: training a LoRA on the target from what an adapter does to the source, on the models' own samples.

The student learns ``target + (source with the adapter − source)``. It is for pairs of bases that weights alone cannot bridge,
and needs both as whole models of one latent space, the extra ``[train]``, and time; no pictures.
"""

from __future__ import annotations

from lorax.train.distill.job import Job, check_paths, open_job
from lorax.train.distill.measure import effect_cosine, missed_share, relative_strength
from lorax.train.distill.prompts import read_prompts
from lorax.train.distill.report import DistillReport, distill_to_html, distill_to_json, distill_to_markdown, distill_to_text
from lorax.train.distill.run import can_resume, distill
from lorax.train.distill.settings import DistillSettings, state_folder
from lorax.train.packages import require_packages

__all__ = [
    "DistillReport",
    "DistillSettings",
    "Job",
    "can_resume",
    "check_paths",
    "distill",
    "distill_to_html",
    "distill_to_json",
    "distill_to_markdown",
    "distill_to_text",
    "effect_cosine",
    "missed_share",
    "open_job",
    "read_prompts",
    "relative_strength",
    "require_packages",
    "state_folder",
]
