"""What ``compare-pictures`` can be told; no torch is needed to ask."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path

from converter import arguments as a

METHODS = ("none", "copy", "auto", "project", "align", "distill")
ABOUT = """Draw one adapter on its own base and, in several ways, on another: the same prompts from the same noise, in one labelled
picture, with a table. It shows on your own checkpoints what a transfer does. The effect cosine compares what the adapter
changes in the two models' predictions, on the source's own pictures: 1 is the same effect, 0 nothing of it.

Columns: none (the target as it is), copy, auto, project, align: transfers by weights alone, made even where they would be
refused; distill: training on the two models' own samples (--distilled FILE takes one that was made before).
Needs pip install 'lorax-webui[train]', and both bases whole (UNet, text encoders, VAE)."""
EXAMPLES = """  lorax-convert compare-pictures ink.safetensors --source sd_xl_base.safetensors --target SSD-1B/ --prompts p.txt -o ink.png
  lorax-convert compare-pictures ink.safetensors --source a/ --target b/ --prompts p.txt -o ink.png --methods copy,auto,distill"""


def add_options(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("adapter", metavar="ADAPTER", type=Path, help="any LoRA, LyCORIS or LoRA-X file")
    add("--source", metavar="BASE", required=True, help="the base it was made for: a checkpoint file or a diffusers folder")
    add("--target", metavar="BASE", required=True, help="the base to see it on")
    add("--prompts", metavar="FILE", type=Path, required=True, help="one prompt a line")
    add("-o", "--output", metavar="GRID.png", type=Path, required=True)
    add("--methods", metavar="LIST", type=methods, default=("none", "copy", "auto"), help="default: none,copy,auto")
    add("--seeds", metavar="N", type=a.positive, default=1, help="pictures of each prompt (default: 1)")
    add("--seed", metavar="N", type=int, default=0, help="the first of them (default: 0)")
    add("--steps", metavar="N", type=a.positive, default=25, help="DDIM steps of a picture (default: 25)")
    add("--guidance", metavar="S", type=a.between(1.0, 30.0), default=7.0, help="classifier-free guidance (default: 7)")
    add("--resolution", metavar="PIXELS", type=a.positive, help="width and height (default: the source's own)")
    add("--batch-size", metavar="N", type=a.positive, default=2, help="pictures at a time (default: 2)")
    add("--precision", choices=("auto", "no", "fp16", "bf16"), default="auto", help="default: bf16 or fp16 on a GPU, full on a CPU")
    add(
        "--source-config",
        metavar="DIR",
        type=Path,
        help="diffusers folder that says how a single-file source is built (offline, pruned models)",
    )
    add("--target-config", metavar="DIR", type=Path, help="the same for the target")
    add(
        "--distilled", metavar="FILE", type=Path, help="for the column 'distill': a file that was distilled before, instead of training one"
    )
    add("--distill-steps", metavar="N", type=a.positive, help="training steps of the column 'distill' (default: 100)")


def methods(text: str) -> tuple[str, ...]:
    """``none,copy,auto``"""
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [name for name in names if name not in METHODS]
    if unknown or not names:
        raise ArgumentTypeError(f"'{text}' is not a list of methods: expected some of {','.join(METHODS)}")
    return names
