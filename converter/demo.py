"""``demo``: the whole way on small families, with reports to look at."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from converter.console import Bars, rows, say, show, show_json
from converter.demo_models import Kin, build
from converter.demo_trained import MISSING, build_trained, draw
from converter.transfer import save_report
from lorax import (
    Bases,
    FileError,
    Progress,
    TransferReport,
    TransferSettings,
    Written,
    carry_out,
    index_to_html,
    open_checkpoint,
    plan_transfer,
    read_adapter,
    relate,
    share_to_text,
    to_json,
    to_svg,
    write_text,
)

NOTICE = (
    "Two of these families have weights drawn at random: names, layouts and blocks of real checkpoints, but no pictures; they show "
    "the mechanics. The third was trained from nothing on pictures of 16 x 16 pixels, so that a result can be looked at."
)
FOLDERS = """models/    base models in single-file layouts
adapters/  made for the two bases whose names end in -base
carried/   the same adapters as standard LoRAs for the other models
reports/   what was done; start with index.html
"""
MARK = "about-this-folder.txt"
"""Lies in every folder that a demo made, so that the next demo may replace what is in it."""


@dataclass(frozen=True)
class Carried:
    """One transfer of the demo."""

    kin: Kin
    report: TransferReport
    page: str
    """Path of the report below the demo's folder."""


def run(arguments: Namespace) -> int:
    """The command."""
    start = time.perf_counter()
    out: Path = arguments.out
    prepare(out)
    with Bars() as progress, one_thread():
        say("building small families of models …")
        families = [
            build_trained(out),
            build(out, "sd1", "bk-sdm-small", "Stable Diffusion 1.5", "sd15"),
            build(out, "sdxl", "ssd-1b", "Stable Diffusion XL", "sdxl"),
        ]
        carried = [one for kin in families for one in carry(kin, out, progress)]
        drawn = draw(families[0], out, progress)
    index = write_index(out, families, carried)
    picture = next(c.report for c in carried if c.report.plan.units and c.kin is families[-1])
    write_text(out / "picture.svg", to_svg(picture), overwrite=True)
    if arguments.json:
        transfers = [{**to_json(c.report), "page": c.page} for c in carried]
        told = {"folder": str(out), "index": str(index), "pictures": str(drawn) if drawn else None, "notice": NOTICE}
        show_json({**told, "seconds": time.perf_counter() - start, "transfers": transfers})
        return 0
    show(table(carried))
    show(f"\n{NOTICE}\n\n{len(carried)} transfers in {time.perf_counter() - start:.0f} s. Open this page:\n{index.resolve()}")
    show(MISSING if drawn is None else f"and this picture, drawn by the trained family:\n{drawn.resolve()}")
    return 0


@contextmanager
def one_thread() -> Generator[None]:
    """Matrices this small take several times longer on several threads than on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def prepare(out: Path) -> None:
    """Make the folders; a folder that holds something else is left alone."""
    if out.exists() and not out.is_dir():
        raise FileError(f"'{out}' is a file, expected a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / MARK).exists():
        raise FileError(f"'{out}' holds files that no demo made: choose another folder with --out")
    for name in ("models", "adapters", "carried", "reports"):
        (out / name).mkdir(parents=True, exist_ok=True)
    write_text(out / MARK, f"{NOTICE}\n\n{FOLDERS}", overwrite=True)


def carry(kin: Kin, out: Path, progress: Progress) -> Iterator[Carried]:
    """Every adapter of a family to every relative of its base; what the two bases have in common is found once."""
    for target_path in kin.targets:
        with open_checkpoint(kin.source) as source, open_checkpoint(target_path) as target:
            adapters = [read_adapter(path, source.arch) for path in kin.adapters]
            layers = sorted({layer for adapter in adapters for layer in adapter.modules})
            relation = relate(source, target, layers, progress=progress)
            for adapter in adapters:
                name = f"{adapter.name}-{target.name}"
                plan = plan_transfer(adapter, source, target, TransferSettings(), relation, progress)
                written = Written(out / "carried" / f"{name}.safetensors", overwrite=True)
                report = carry_out(plan, adapter, source, target, written, Bases(), progress)
                save_report(out / "reports" / f"{name}.html", report, force=True, quiet=True)
                yield Carried(kin, report, f"reports/{name}.html")


def write_index(out: Path, families: list[Kin], carried: list[Carried]) -> Path:
    """The page that leads to all reports."""
    groups = [(kin.title, [(c.page, c.report) for c in carried if c.kin is kin]) for kin in families]
    write_text(out / "index.html", index_to_html("Adapters on the move", [NOTICE], groups), overwrite=True)
    return out / "index.html"


def table(carried: list[Carried]) -> str:
    """What was carried, for a terminal."""
    body = [
        (
            f"{c.report.plan.adapter_name} → {c.report.plan.target_name}",
            c.report.plan.method,
            c.report.plan.verdict,
            f"{c.report.modules_out}/{c.report.modules_in}",
            share_to_text(c.report.energy_kept),
        )
        for c in carried
    ]
    return rows(("adapter → target", "method", "verdict", "modules", "energy kept"), body)
