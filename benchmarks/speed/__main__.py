"""All figures of docs/performance.md in one run:

    python -m benchmarks.speed --folder DIR [--quick] [--sd-scripts DIR --sd-python FILE] [--write docs/performance.md] [--plot FILE.svg]

Without --folder only the parts that need no checkpoints run; `python benchmarks/real_size.py --folder DIR` writes them (17 GB, random).
Everything that is compared runs in turn in this one run, so that the ratios mean something. Linux only (memory is read from /proc).
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.speed import spectra, transfers
from benchmarks.speed.tables import Page, plot

PARTS = ("bases", "k", "verdict", "warm", "memory", "many", "jobs", "rivals")
ONE_BLOCK = "mid_block.attentions.0.transformer_blocks.0."


def main() -> None:
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    page = Page()
    began = time.perf_counter()
    page.line(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}; "
        f"load when it began: {os.getloadavg()[0]:.1f}"
    )
    for part in options.only or PARTS:
        start = time.perf_counter()
        print(f"== {part}", file=sys.stderr, flush=True)
        STEPS[part](options, page)
        print(f"== {part}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    page.line(f"The whole run took {(time.perf_counter() - began) / 60:.1f} minutes.")
    print(page.text())
    if options.write:
        page.write_into(options.write)
    if options.plot:
        plot(page, options.plot)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="the checkpoints of benchmarks/real_size.py")
    parser.add_argument("--quick", action="store_true", help="SDXL only, and 12 adapters in place of 100: minutes on two idle cores")
    parser.add_argument("--only", choices=PARTS, nargs="+")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--sd-scripts", type=Path, help="a checkout of kohya-ss/sd-scripts, to compare with")
    parser.add_argument("--sd-python", type=Path, help="the Python that runs it")
    parser.add_argument("--write", type=Path, help="put the tables into this page, between its two marks")
    parser.add_argument("--plot", type=Path, help="an SVG")
    return parser.parse_args()


def bases(options: argparse.Namespace, page: Page) -> None:
    names = ("sdxl",) if options.quick else ("sdxl", "sd1")
    devices = [torch.device("cpu")] + ([torch.device("cuda")] if torch.cuda.is_available() else [])
    for device in devices:
        page.bases(device, list(spectra.measure(names, device)))
    if len(devices) == 1:
        page.line("GPU: none on this machine. The code for one is the same and was not run on one here.")


def time_of_k(options: argparse.Namespace, page: Page) -> None:
    page.ranks(spectra.time_of_k((64, 320, 640, 960, 1280)))


def verdict(options: argparse.Namespace, page: Page) -> None:
    if options.folder:
        for target in ("ssd1b",) if options.quick else ("ssd1b", "finetune"):
            page.verdict(target, transfers.verdict(options.folder, target))


def warm(options: argparse.Namespace, page: Page) -> None:
    if options.folder:
        target = "ssd1b" if options.quick else "finetune"
        with tempfile.TemporaryDirectory() as work:
            page.warm(target, *transfers.warm(options.folder, target, Path(work), 3))


def memory(options: argparse.Namespace, page: Page) -> None:
    """A projection from cold of the layers of one block, among them the largest; memory does not grow with their number."""
    if options.folder:
        modules, seconds, peak = transfers.many(options.folder, "finetune", 1, lambda path: path.startswith(ONE_BLOCK))
        page.memory(modules, seconds[0], peak)


def many(options: argparse.Namespace, page: Page) -> None:
    if options.folder:
        count = 12 if options.quick else 100
        modules, seconds, peak = transfers.many(options.folder, "finetune", count, lambda path: path.startswith(ONE_BLOCK))
        page.many(modules, seconds, peak)


def jobs(options: argparse.Namespace, page: Page) -> None:
    if options.folder:
        wanted = lambda path: path.startswith(ONE_BLOCK)  # noqa: E731
        page.jobs([(n, *transfers.batch(options.folder, "finetune", n, 4, wanted)) for n in (1, 2, 4)])


def rivals(options: argparse.Namespace, page: Page) -> None:
    if not (options.sd_scripts and options.sd_python):
        page.line("sd-scripts was not given, so its tools were not timed.")
        return
    with tempfile.TemporaryDirectory() as name:
        lora = Path(name) / "lora.safetensors"
        modules = transfers.write_lora(lora, lambda path: path.startswith(ONE_BLOCK))
        page.rivals(modules, transfers.resize(lora, Path(name) / "out.safetensors", 16, options.sd_scripts, options.sd_python))


STEPS = {"bases": bases, "k": time_of_k, "verdict": verdict, "warm": warm, "memory": memory, "many": many, "jobs": jobs, "rivals": rivals}

if __name__ == "__main__":
    main()
