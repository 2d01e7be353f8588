"""Samples that ``python -m lorax.train`` itself draws, on the SD1-like model of benchmarks/quality.

``python -m benchmarks.training_samples [--out docs/training-samples.png] [-- further words for the command]``

The command gets a folder of pictures with captions, as a user has it. The model is made first, where ``--work`` has none; a run that
is in ``--folder`` already is not repeated.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.quality.__main__ import WORK, say
from benchmarks.quality.family import FULL, Member, Workshop
from benchmarks.quality.grids import draw_grid, image
from benchmarks.quality.pictures import CAPTIONS, SIZE, STYLES, draw
from lorax.train.data import Picture, read_pixels

PROMPTS = ("red circle northwest", "green square southeast", "blue cross northeast", "yellow triangle southwest", "cyan square northwest")
PICTURES = 200
RUNS = (("stripes", "diagonal", "3e-2", 0), ("stripes", "full", "5e-3", 0), ("frame", "diagonal", "3e-2", 1))
"""(style, kind, learning rate, seed). The rates were chosen on ``frame`` with another base and other pictures."""
LONG = ("--target", "linear", "--batch-size", "16", "--steps", "300", "--sample-every", "150", "--schedule", "cosine")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK / "full", help="where benchmarks.quality keeps its models")
    parser.add_argument("--folder", type=Path, default=Path("build/training-samples"), help="for pictures and files")
    parser.add_argument("--out", type=Path, default=Path("docs/training-samples.png"))
    parser.add_argument("more", nargs="*")
    told = parser.parse_args()
    torch.set_num_threads(1)
    base = Workshop(told.work, FULL, say()).model(Member("sd", 0, "source")).with_suffix("")
    columns: list[tuple[str, Tensor]] = []
    for style, kind, rate, seed in RUNS:
        pictures = write_pictures(told.folder / f"{style}-{seed}", style, seed)
        if kind == "diagonal":
            columns.append((f"{style}:\nto learn", _read(sorted(pictures.glob("*.png"))[: len(PROMPTS)])))
        out = told.folder / f"{style}-{seed}-{kind}.safetensors"
        columns += run_command(base, pictures, out, "--kind", kind, "--learning-rate", rate, "--seed", str(seed), *told.more)
    draw_grid(told.out, columns, PROMPTS)
    return 0


def write_pictures(folder: Path, style: str, seed: int) -> Path:
    """Pictures of a style, and a text beside each that says what it shows, but for the style."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = draw(PICTURES, 40 + STYLES.index(style) + 100 * seed, style=style)
    for i, (pixels, caption) in enumerate(zip(drawn.pixels, drawn.caption.tolist(), strict=True)):
        image(pixels).save(folder / f"{i:02}.png")
        (folder / f"{i:02}.txt").write_text(CAPTIONS[caption], encoding="utf-8")
    return folder


def run_command(base: Path, pictures: Path, out: Path, *said: str) -> Iterator[tuple[str, Tensor]]:
    """The first, middle and last samples of a run as columns."""
    words = [sys.executable, "-m", "lorax.train", str(base), str(pictures), "-o", str(out), "--resolution", str(SIZE), *said]
    words += [*LONG, "--sample-guidance", "2", "--device", "cpu", *(w for prompt in PROMPTS for w in ("--sample-prompt", prompt))]
    if not out.exists():
        subprocess.run(words, check=True)
    samples = out.with_name(f"{out.stem}-samples")
    steps = sorted({path.stem.split("-")[1] for path in samples.glob("step-*.png")})
    for step in (steps[0], steps[len(steps) // 2], steps[-1]):
        yield f"{said[1]}\nstep {int(step)}", _read([samples / f"step-{step}-{i}.png" for i in range(len(PROMPTS))])


def _read(paths: list[Path]) -> Tensor:
    return torch.stack([read_pixels(Picture(path, "", (SIZE, SIZE))) for path in paths])


if __name__ == "__main__":
    raise SystemExit(main())
