"""What ``--method distill`` can be told on the command line; no torch is needed to ask."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from converter import arguments as a

OPTIONS = {
    "steps": "--steps",
    "prompts": "--prompts",
    "samples": "--samples",
    "points": "--points",
    "sampling_steps": "--sampling-steps",
    "guidance": "--guidance",
    "resolution": "--resolution",
    "batch_size": "--batch-size",
    "learning_rate": "--learning-rate",
    "seed": "--seed",
    "start": "--start",
    "precision": "--precision",
    "gradient_checkpointing": "--gradient-checkpointing",
    "source_config": "--source-config",
    "target_config": "--target-config",
    "resume": "--resume",
}
"""Fields of `DistillSettings` that have an option of their own."""
OTHERS = {"rank": "--rank", "out_energy": "--out-energy", "min_similarity": "--min-similarity"}
"""Options of the weights-only methods that mean nothing here."""


def add_options(parser: ArgumentParser) -> None:
    """What `--method distill` can be told; all are None where nothing was said, so that they are not ignored in silence elsewhere."""
    group = parser.add_argument_group(
        "--method distill, which is training (needs pip install 'lorax-webui[train]')",
        "Both models draw samples of their own; a LoRA of rank --out-rank is trained on the target to show there what the adapter does\n"
        "to the source. No pictures are needed; both bases have to be whole (UNet, text encoders, VAE). Ctrl-C saves, --resume goes on.",
    )
    add = group.add_argument
    add("--steps", metavar="N", type=a.positive, help="training steps (default: 100)")
    add(
        "--prompts",
        metavar="FILE",
        type=Path,
        help="one prompt a line (default: made from a list of words and the adapter's trigger words)",
    )
    add("--samples", metavar="N", type=a.positive, help="samples of each model (default: 32)")
    add("--points", metavar="N", type=a.positive, help="noisy versions of each sample to learn from (default: 4)")
    add("--sampling-steps", metavar="N", type=a.positive, help="DDIM steps of a sample (default: 15)")
    add("--guidance", metavar="S", type=a.between(1.0, 30.0), help="classifier-free guidance of the samples (default: 3)")
    add("--resolution", metavar="PIXELS", type=a.positive, help="of the samples (default: the target's own)")
    add("--batch-size", metavar="N", type=a.positive, help="samples at a time (default: 4); less needs less memory")
    add("--learning-rate", metavar="X", type=a.between(0.0, 10.0, open_below=True), help="default: found by short trials")
    add("--seed", metavar="N", type=int, help="default: 0")
    add("--start", choices=("auto", "project", "copy", "align", "none"), help="the weights-only transfer to start from (default: auto)")
    add("--precision", choices=("auto", "no", "fp16", "bf16"), help="default: bf16 or fp16 on a GPU, full on a CPU")
    add("--gradient-checkpointing", action="store_true", default=None, help="less memory, more time")
    add(
        "--source-config",
        metavar="DIR",
        type=Path,
        help="diffusers folder that says how a single-file source is built, where diffusers cannot look it up (offline)",
    )
    add("--target-config", metavar="DIR", type=Path, help="the same for the target")
    add("--resume", action="store_true", default=None, help="go on from the state that a stopped training left")


def stray_option(arguments: Namespace) -> str | None:
    """An option that was given and that the method would ignore."""
    named = OTHERS if arguments.method == "distill" else OPTIONS
    return next((option for name, option in named.items() if getattr(arguments, name, None) is not None), None)
