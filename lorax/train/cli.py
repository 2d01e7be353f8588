"""``python -m lorax.train``: the options, and what they become."""

from __future__ import annotations

import math
from argparse import Action, ArgumentDefaultsHelpFormatter, ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path

from lorax.device import KINDS as DEVICES
from lorax.train.options import KINDS, parse_options
from lorax.train.settings import PRECISIONS, SCHEDULES, TrainSettings

_ABOUT = """Train a native LoRA-X adapter on a folder of pictures. Each picture has a .txt of the same name that says what it shows.
The adapter is a few hundred kilobytes, belongs to its base, and is carried to other bases by 'python -m converter transfer'."""


class _Formatter(ArgumentDefaultsHelpFormatter):
    """Says a default where there is one."""

    def _get_help_string(self, action: Action) -> str | None:
        silent = action.default is None or action.default is False or action.default in ("", [])
        return action.help if silent else super()._get_help_string(action)


def build_parser() -> ArgumentParser:
    """The command line."""
    parser = ArgumentParser("python -m lorax.train", description=_ABOUT, formatter_class=_Formatter)
    add = parser.add_argument
    add("base", type=Path, help="the base model: a checkpoint file (SD1.x, SD2, SDXL) or a diffusers folder")
    add("pictures", type=Path, help="folder of pictures, each with its caption in a .txt of the same name")
    add("-o", "--output", type=Path, required=True, help="the .safetensors file to write")
    add(
        "--config",
        type=Path,
        help="diffusers folder that says how a single file's networks are built, where diffusers cannot look it up (offline)",
    )
    add("--caption", help="caption of pictures that have no .txt")
    add("--export", type=Path, metavar="FILE", help="write a standard LoRA as well, which every WebUI takes")
    add(
        "--steps",
        type=_positive,
        default=TrainSettings.steps,
        help="how often the adapter is adjusted; with --resume, those already done count",
    )
    add(
        "--resolution",
        type=_positive,
        default=None,
        help="pictures are scaled to about its square in pixels (default: 512 for SD1 and SD2, 1024 for SDXL)",
    )
    add("--batch-size", type=_positive, default=1, help="pictures learned at once: more take more memory")
    add("--accumulate", type=_positive, default=1, help="batches per step: as a larger batch size, in less memory")
    add(
        "--learning-rate",
        type=_rate,
        default=TrainSettings.learning_rate,
        help="how far a step goes: higher learns faster, too high breaks pictures",
    )
    add("--warmup", type=_count, default=TrainSettings.warmup, help="steps until the learning rate is reached")
    add("--schedule", choices=SCHEDULES, default="constant", help="whether the learning rate stays, or falls to zero at the last step")
    add(
        "--precision",
        choices=PRECISIONS,
        default=None,
        help="numbers to compute with, no for fp32 (default: bf16 on a GPU that has it, fp16 on another, no on a CPU)",
    )
    add("--dtype", choices=("fp16", "bf16", "fp32"), default="fp16", help="of the numbers in the files that are written")
    add("--gradient-checkpointing", action="store_true", help="less memory, more time")
    add("--seed", type=int, default=0, help="of noise and order; the same seed gives the same file")
    add(
        "--rank",
        type=_positive,
        default=TrainSettings.k,
        metavar="K",
        help="k: singular directions of each layer, as many as it has at most",
    )
    add("--kind", choices=KINDS, default="diagonal", help="what is trained: σ, k numbers a layer, or all of ΔΣ, k² numbers")
    add("--target", default="attn", help="which layers are trained: attn, ff (feed-forward), linear (all), conv, joined by +")
    add("--exclude", default="", help="layers to leave out, as 'unet.mid_block.*,*.to_k'")
    add("--self-contained", action="store_true", help="factors in the file, so that every loader takes it as it is (large)")
    add(
        "--form",
        choices=("auto", "factored", "merged"),
        default="auto",
        help="how layers are computed (docs/training.md); auto chooses for each layer and step",
    )
    add("--save-every", type=_positive, default=TrainSettings.save_every, help="steps between files and states")
    add("--sample-every", type=_count, default=TrainSettings.sample_every, help="steps between samples; 0 for none")
    add("--sample-prompt", action="append", default=[], help="what samples show; repeatable (default: the first caption)")
    add("--sample-steps", type=_positive, default=TrainSettings.sample_steps, help="of denoising, for each sample")
    add("--sample-guidance", type=float, default=TrainSettings.sample_guidance, help="how far samples follow the prompt (CFG scale)")
    add("--resume", action="store_true", help="go on from the state beside the output")
    add(
        "--force",
        action="store_true",
        help="overwrite the output and the standard LoRA, and remove the samples of the run that is replaced",
    )
    add("--device", choices=("auto", *DEVICES), default="auto", help="auto takes the GPU where there is one")
    return parser


def settings_of(arguments: Namespace, family: str, precision: str) -> TrainSettings:
    """The settings; family and precision fill in what was left open."""
    names = ("kind", "target", "exclude", "self_contained", "form")
    return TrainSettings(
        base=arguments.base,
        pictures=arguments.pictures,
        output=arguments.output,
        config=arguments.config,
        network=parse_options({name: getattr(arguments, name) for name in names} | {"device": arguments.device}),
        k=arguments.rank,
        caption=arguments.caption,
        resolution=arguments.resolution or (1024 if family == "sdxl" else 512),
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        accumulate=arguments.accumulate,
        learning_rate=arguments.learning_rate,
        warmup=arguments.warmup,
        schedule=arguments.schedule,
        precision=arguments.precision or precision,
        seed=arguments.seed,
        save_every=arguments.save_every,
        sample_every=arguments.sample_every,
        sample_prompts=tuple(arguments.sample_prompt),
        sample_steps=arguments.sample_steps,
        sample_guidance=arguments.sample_guidance,
        gradient_checkpointing=arguments.gradient_checkpointing,
        resume=arguments.resume,
        export=arguments.export,
        overwrite=arguments.force,
        device=arguments.device,
        dtype=arguments.dtype,
    )


def _positive(word: str) -> int:
    if not word.isascii() or not word.isdigit() or int(word) < 1:
        raise ArgumentTypeError(f"'{word}' is no number of at least 1")
    return int(word)


def _count(word: str) -> int:
    if not word.isascii() or not word.isdigit():
        raise ArgumentTypeError(f"'{word}' is no number of at least 0")
    return int(word)


def _rate(word: str) -> float:
    try:
        rate = float(word)
    except ValueError:
        rate = math.nan
    if not 0 < rate < math.inf:
        raise ArgumentTypeError(f"'{word}' is no number above 0, as 0.001")
    return rate
