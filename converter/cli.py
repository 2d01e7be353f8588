"""The command line: what can be said, and help texts that teach."""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

from converter import arguments as a
from converter import cache_options, compare_options, distill_options

THREE_RANKS = """Three ranks, three names: --rank is k, how many of the target's own directions a projection may use;
--out-rank is r, the size of the LoRA that is written; similarity is measured at a small rank of its own."""

METHODS = """How an adapter gets there:
  auto     what fits: layers with equal weights are copied, a native LoRA-X adapter is projected at its own k, an
           ordinary LoRA between relatives is copied, a target with other widths or another order of channels is
           aligned, and unrelated bases are refused
  align    channel by matching channel, as the weights of both bases tell them; a copy where the channels are the same
  project  always through the target's k leading directions (the paper's rule); an ordinary LoRA loses much of itself
  copy     always unchanged: the plain control that everything else is compared with"""

TRAINED = """  distill  training, without data: a LoRA on the target learns what the adapter does to the source, on samples that the two
           models make themselves; for bases that weights alone do not bridge. Minutes on a GPU"""

BASE = "a checkpoint file, a diffusers folder, or 'unet+te1+te2' files joined by +"


def build_parser() -> ArgumentParser:
    """The whole command line; each command's namespace has `module`, whose ``run(arguments)`` does the work."""
    parser = ArgumentParser(
        prog="lorax-convert",
        description="Carry a LoRA to another Stable Diffusion checkpoint: no training, no data, out as a standard LoRA.",
        epilog="Start with: lorax-convert demo\nHelp on a command: lorax-convert transfer --help",
        formatter_class=RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True, title="commands", dest="command")
    for add in (_inspect, _transfer, _similarity, _to_lorax, _export, _bake, _batch, _cache, _compare, _demo, _ui):
        add(commands)
    return parser


def _command(commands: Any, name: str, module: str, brief: str, description: str, examples: str) -> ArgumentParser:
    parser: ArgumentParser = commands.add_parser(
        name,
        help=brief,
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.set_defaults(module=f"converter.{module}")
    return parser


def _inspect(commands: Any) -> None:
    parser = _command(
        commands,
        "inspect",
        "inspection",
        "what a checkpoint or an adapter is",
        "Say what a file is: family, dialect, modules by component and block, ranks, the base it was made for, hashes,\n"
        "and what of it cannot be used and why. Nothing is changed, and pickles are read without running them.",
        "  lorax-convert inspect style.safetensors\n  lorax-convert inspect dreamshaper_8.safetensors --no-hash --json",
    )
    parser.add_argument("files", metavar="FILE", nargs="+", help=f"adapters and checkpoints ({BASE})")
    parser.add_argument("--no-hash", action="store_true", help="skip the hashes, which read the whole file")
    _json(parser)


def _transfer(commands: Any) -> None:
    parser = _command(
        commands,
        "transfer",
        "transfer",
        "carry an adapter from its base to another one",
        "Carry an adapter, made for the base --source, to the base --target, and write it as a standard LoRA.\n"
        "Blocks are matched by their weights where the two bases have different depths; layers that share nothing are\n"
        f"left out and named in the report.\n\n{METHODS}\n{TRAINED}\n\n{THREE_RANKS}",
        "  lorax-convert transfer ink.safetensors --source sd_xl_base_1.0.safetensors --target SSD-1B.safetensors\n"
        "  lorax-convert transfer ink.safetensors --source auto --checkpoints models/ --target pony.safetensors \\\n"
        "      --report ink.html\n"
        "  lorax-convert transfer ink.safetensors --source base/ --target other/ --dry-run --json\n"
        "  lorax-convert transfer ink.safetensors --source base/ --target other/ --method distill --steps 200\n"
        "exit code 3: refused, because the two bases share too little; --force writes it as an experiment",
    )
    parser.add_argument("adapter", metavar="ADAPTER", type=Path, help="any LoRA, LyCORIS or LoRA-X file")
    parser.add_argument("--source", metavar="BASE", help=f"the base it was made for: {BASE}; 'auto': found by hash in --checkpoints")
    parser.add_argument("--target", metavar="BASE", required=True, help="the base to carry it to")
    parser.add_argument("--checkpoints", metavar="DIR", action="append", default=[], help="where '--source auto' looks (repeatable)")
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, help="default: <adapter>-<target>.safetensors beside the adapter")
    _how(parser, "distill")
    distill_options.add_options(parser)
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and write no adapter")
    parser.add_argument("--report", metavar="FILE", type=a.report_path, help="a report to keep: .html (with pictures), .md or .json")
    _json(parser)


def _how(parser: ArgumentParser, *also: str) -> None:
    """Options shared by transfer and batch. also: methods that only one of them has."""
    parser.add_argument("--method", choices=("auto", "align", "project", "copy", *also), default="auto", help="see above (default: auto)")
    parser.add_argument("--rank", metavar="K", type=a.positive, help="k of a projection (default: the adapter's own, else 320)")
    _out_rank(parser, "default: an ordinary LoRA keeps its own; the rest gets 64 or what holds 99 %% of the energy")
    parser.add_argument(
        "--min-similarity",
        metavar="X",
        type=a.between(-1.0, 1.0),
        help="leave out layers whose similarity above chance is lower (default: 0.5)",
    )
    parser.add_argument(
        "--only",
        metavar="PATTERN",
        action="append",
        default=[],
        help="take only layers like this, e.g. 'up_blocks' or '*attn2*' (repeatable)",
    )
    parser.add_argument("--skip", metavar="PATTERN", action="append", default=[], help="leave out layers like this (repeatable)")
    parser.add_argument("--strength", metavar="S", type=a.strength, default=1.0, help="multiply the written adapter (default: 1)")
    parser.add_argument("--components", metavar="LIST", type=a.components, help="take only these: unet,te1,te2")
    parser.add_argument(
        "--format", choices=("kohya", "peft"), default="kohya", help="names in the file: kohya for every WebUI, peft for diffusers"
    )
    _dtype(parser)
    _device(parser)
    parser.add_argument("--force", action="store_true", help="overwrite the output, and go on where a transfer is refused")


def _similarity(commands: Any) -> None:
    parser = _command(
        commands,
        "similarity",
        "similarity",
        "how alike two bases are, layer by layer",
        "Compare two bases by their weights alone: which block matches which, how much the leading directions of each layer\n"
        "agree above chance (left: outputs, right: inputs), and the adapter transferability cost (ATC, lower is easier).",
        "  lorax-convert similarity sd_xl_base_1.0.safetensors pony.safetensors --report pony.html\n"
        "  lorax-convert similarity base/ pruned/ --json",
    )
    parser.add_argument("source", metavar="SOURCE", help=BASE)
    parser.add_argument("target", metavar="TARGET", help=BASE)
    parser.add_argument("--rank", metavar="K", type=a.positive, help="rank of the comparison (default: 32, less in narrow layers)")
    parser.add_argument("--components", metavar="LIST", type=a.components, help="compare only these: unet,te1,te2")
    parser.add_argument("--all-layers", action="store_true", help="compare every linear layer and convolution, not only attention")
    parser.add_argument("--report", metavar="FILE", type=a.report_path, help="a report to keep: .html (with pictures), .md or .json")
    parser.add_argument("--force", action="store_true", help="overwrite the report")
    _device(parser)
    _json(parser)


def _to_lorax(commands: Any) -> None:
    parser = _command(
        commands,
        "to-lorax",
        "native",
        "put an ordinary adapter into LoRA-X form",
        "Write an ordinary adapter in LoRA-X form: on the leading singular directions of its own base. An ordinary LoRA lies\n"
        "only partly there; the energy that is kept is printed, and it is often low. A LoRA-X file trained as one has no such loss.\n"
        "The file is self-contained and loads like any LoRA; --diagonal writes one number per direction instead (82 kB for SD1.5),\n"
        "which keeps far less.",
        "  lorax-convert to-lorax ink.safetensors --base sd15.safetensors -o ink-x.safetensors",
    )
    parser.add_argument("adapter", metavar="ADAPTER", type=Path)
    parser.add_argument("--base", metavar="BASE", required=True, help=f"the base it was made for: {BASE}")
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, required=True)
    parser.add_argument("--rank", metavar="K", type=a.positive, default=320, help="k, the directions of the base to use (default: 320)")
    parser.add_argument("--diagonal", action="store_true", help="only σ, one number per direction; it needs its base to be used")
    _dtype(parser)
    _device(parser)
    _force(parser)
    _json(parser)


def _export(commands: Any) -> None:
    parser = _command(
        commands,
        "export",
        "native",
        "write a LoRA-X file as a standard LoRA for its own base",
        "Write a native LoRA-X file as a standard LoRA for the base that it was trained on, for programs that know no LoRA-X.\n"
        "A σ file is rebuilt on the base and checked against the fingerprints it carries.\n\n--out-rank is r, the size of the LoRA that is written.",  # noqa: E501
        "  lorax-convert export ink-x.safetensors --base sd15.safetensors -o ink.safetensors --out-rank 64",
    )
    parser.add_argument("adapter", metavar="ADAPTER", type=Path)
    parser.add_argument("--base", metavar="BASE", required=True, help=f"the base it was trained on: {BASE}")
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, required=True)
    _out_rank(parser, "default: 64, or less where that holds 99 %% of the energy")
    parser.add_argument("--format", choices=("kohya", "peft"), default="kohya")
    _dtype(parser)
    _device(parser)
    _force(parser)
    _json(parser)


def _bake(commands: Any) -> None:
    parser = _command(
        commands,
        "bake",
        "bake",
        "merge adapters into a checkpoint",
        "Write a checkpoint with adapters merged in, each at its strength. Streamed: one tensor at a time is in memory. Biases and\n"
        "norms that an adapter changes are merged too. The adapters have to be made for this checkpoint: transfer them first.",
        "  lorax-convert bake sd15.safetensors ink.safetensors:0.8 detail.safetensors -o sd15-ink.safetensors",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="one file")
    parser.add_argument("adapters", metavar="ADAPTER[:STRENGTH]", type=a.weighted_adapter, nargs="+", help="strength 1 where none is given")
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, required=True)
    _device(parser)
    _force(parser)
    _json(parser)


def _batch(commands: Any) -> None:
    parser = _command(
        commands,
        "batch",
        "batch",
        "many adapters to many bases",
        "Carry many adapters of one base to many others. What depends on the bases alone is done once. A failure is a row in the\n"
        f"table, and the rest go on; the exit code is 1 if anything failed.\n\n{METHODS}\n\n{THREE_RANKS}",
        "  lorax-convert batch --adapters loras/ --source sd15.safetensors --targets a.safetensors b.safetensors --out carried/\n"
        "  lorax-convert batch … --jobs 2 --resume      go on after an interruption",
    )
    parser.add_argument("--adapters", metavar="PATH", type=Path, nargs="+", required=True, help="files, or folders of .safetensors files")
    parser.add_argument("--source", metavar="BASE", required=True, help=f"the base they were made for: {BASE}")
    parser.add_argument("--targets", metavar="PATH", nargs="+", required=True, help="the bases to carry them to")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder of the results: <adapter>-<target>.safetensors")
    parser.add_argument("--jobs", metavar="N", type=a.positive, default=1, help="processes; each has its share of the cores (default: 1)")
    parser.add_argument("--resume", action="store_true", help="keep results that were made from the same adapter, target and settings")
    _how(parser)
    parser.add_argument("--reports", action="store_true", help="also write an HTML report beside every result")
    _json(parser)


def _compare(commands: Any) -> None:
    parser = _command(
        commands,
        "compare-pictures",
        "compare_pictures",
        "draw an adapter on its own base and on another, side by side",
        compare_options.ABOUT,
        compare_options.EXAMPLES,
    )
    compare_options.add_options(parser)
    _device(parser)
    _force(parser)
    _json(parser)


def _cache(commands: Any) -> None:
    parser = _command(commands, "cache", "cache", "what is kept between runs", cache_options.ABOUT, cache_options.EXAMPLES)
    cache_options.add_options(parser)
    _json(parser)


def _demo(commands: Any) -> None:
    parser = _command(
        commands,
        "demo",
        "demo",
        "see it work, on small synthetic models",
        "Build a small family of base models in genuine file layouts (a source, a fine-tune, a pruned one; SD1.5 and SDXL names) with\n"
        "an ordinary LoRA and a native LoRA-X file, carry both to every target, and write reports to look at. The weights are\n"
        "synthetic: they show the mechanics, not the look of pictures.",
        "  lorax-convert demo\n  lorax-convert demo --out somewhere",
    )
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("lorax-demo"), help="default: lorax-demo")
    _json(parser)


def _ui(commands: Any) -> None:
    parser = _command(
        commands,
        "ui",
        "ui",
        "transfer, compare and inspect in the browser",
        "Serve the panels of the WebUI extension on a page of their own. It is reached from this machine only, sends nothing to\n"
        "anyone, and works in the folders given here and in no other. Needs gradio: pip install 'lorax-webui[ui]'.",
        "  lorax-convert ui --adapters models/Lora --checkpoints models/Stable-diffusion",
    )
    parser.add_argument("--adapters", metavar="DIR", type=Path, required=True, help="folder of adapters")
    parser.add_argument("--checkpoints", metavar="DIR", type=Path, required=True, help="folder of base models")
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder of the results (default: that of the adapters)")
    parser.add_argument("--port", metavar="N", type=a.port, default=7870, help="0 takes any that is free (default: 7870)")
    _device(parser)


def _out_rank(parser: ArgumentParser, default: str) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--out-rank", metavar="R", type=a.positive, help=f"largest rank r of the written LoRA ({default})")
    group.add_argument("--out-energy", metavar="E", type=a.share, help="choose r by the share of energy to keep, e.g. 0.95")


def _dtype(parser: ArgumentParser) -> None:
    parser.add_argument("--dtype", choices=("fp16", "bf16", "fp32"), default="fp16", help="numbers in the file (default: fp16)")


def _device(parser: ArgumentParser) -> None:
    parser.add_argument("--device", metavar="DEVICE", type=a.device, default="auto", help=f"{a.DEVICES} (default: auto, CUDA or CPU)")


def _force(parser: ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="overwrite the output")


def _json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
