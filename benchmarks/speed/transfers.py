"""(b) A warm transfer against reading and writing the file, (d) memory, (e) many adapters; and what the verdict costs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.real_size import TRUE_SIZE, measure
from converter.samples.widths import layer_shapes
from lorax.adapter import LowRank
from lorax.archs import by_name
from lorax.checkpoint import open_checkpoint
from lorax.formats import read_adapter, write_adapter
from lorax.layers import LayerKind
from lorax.linalg import Factors
from lorax.safefile import open_tensors, write_safetensors
from lorax.transfer.relate import relate


@dataclass(frozen=True)
class Warm:
    """Seconds, in the order in which they were taken."""

    floor: float
    """Reading and writing the file with the safetensors format alone, flushed to disk as ours is."""
    cold: float
    warm: float
    hundred: list[float]
    """Of further adapters between the same bases."""


def write_lora(path: Path, wanted: Callable[[str], bool], rank: int = 32, seed: int = 0) -> int:
    """A LoRA for SDXL on the transformer layers whose path is wanted; the number of its modules."""
    arch = by_name("sdxl")
    shapes = layer_shapes(arch, TRUE_SIZE)
    chosen = [s.id for s in arch.layers() if s.unit.kind == "transformer" and s.kind == LayerKind.LINEAR and wanted(s.id.path)]
    g = torch.Generator().manual_seed(seed)
    modules = {
        i: Factors(torch.randn(shapes[i][0], rank, generator=g) * 0.02, torch.randn(rank, shapes[i][1], generator=g) * 0.02) for i in chosen
    }
    metadata = {"ss_base_model_version": arch.base_model_version, "ss_network_dim": str(rank)}
    write_adapter(path, modules, arch, shapes={i: shapes[i] for i in chosen}, metadata=metadata, overwrite=True)
    return len(chosen)


def verdict(folder: Path, target: str) -> float:
    """Seconds of the whole-model passes from cold, over the layers that a LoRA of attention and feed-forward adapts."""
    with open_checkpoint(folder / "sdxl.safetensors") as source, open_checkpoint(folder / f"{target}.safetensors") as other:
        layers = [i for i, s in source.layers.items() if s.spec.unit.kind == "transformer" and s.spec.kind == LayerKind.LINEAR]
        start = time.perf_counter()
        relate(source, other, layers, "cpu", method="copy")
        return time.perf_counter() - start


def floor(path: Path, out: Path) -> float:
    """Read the file, write the file."""
    start = time.perf_counter()
    with open_tensors(path) as file:
        tensors = {name: file.read(name) for name in file.tensors}
        write_safetensors(out, tensors, dict(file.metadata), overwrite=True)
    return time.perf_counter() - start


CARRY = """
import gc, json, sys, time
from pathlib import Path
from lorax import (TransferSettings, Written, cached_bases, carry_out, default_folder, open_checkpoint, plan_transfer, read_adapter)
source, target, out, method, *adapters = sys.argv[1:]
seconds = []
gc.freeze()  # as the command line does
for path in adapters:
    start = time.perf_counter()
    with open_checkpoint(source) as a, open_checkpoint(target) as b:
        adapter = read_adapter(Path(path), a.arch)
        settings = TransferSettings(method=method, device="cpu", force=True)
        plan = plan_transfer(adapter, a, b, settings, relations=default_folder() / "relations")
        carry_out(plan, adapter, a, b, Written(Path(out), overwrite=True), cached_bases())
    seconds.append(time.perf_counter() - start)
print(json.dumps({"seconds": seconds}))
"""


def carry(folder: Path, target: str, method: str, adapters: list[Path], cache: Path) -> tuple[list[float], int]:
    """Seconds of each transfer in one process, and its peak of anonymous bytes."""
    out = cache / "out.safetensors"
    command = [sys.executable, "-c", CARRY, str(folder / "sdxl.safetensors"), str(folder / f"{target}.safetensors"), str(out), method]
    with cache_in(cache):
        found = measure([*command, *map(str, adapters)], torch.get_num_threads())
    return list(found.report["seconds"]), found.peak  # type: ignore[call-overload]


@contextlib.contextmanager
def cache_in(folder: Path) -> Generator[None]:
    """Processes that are started meanwhile keep their cache there."""
    before = os.environ.get("LORAX_CACHE")
    os.environ["LORAX_CACHE"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["LORAX_CACHE"]
        else:
            os.environ["LORAX_CACHE"] = before


def warm(folder: Path, target: str, work: Path, count: int) -> tuple[Warm, int]:
    """An ordinary LoRA from SDXL to a relative, `count` times after the first; the peak memory beside."""
    lora = folder / "lora.safetensors"
    floors = [floor(lora, work / "copy.safetensors") for _ in range(3)]
    seconds, peak = carry(folder, target, "auto", [lora] * (2 + count), work)
    return Warm(min(floors), seconds[0], min(seconds[1:]), seconds[1:]), peak


def batch(folder: Path, target: str, jobs: int, count: int, wanted: Callable[[str], bool]) -> tuple[float, int]:
    """``batch --jobs``: seconds, and the peak of all its processes together, for `count` small LoRAs from an empty cache."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "in").mkdir()
        for i in range(count):
            write_lora(work / "in" / f"{i}.safetensors", wanted, seed=i)
        command = [sys.executable, "-m", "converter", "batch", "--adapters", str(work / "in"), "--source", str(folder / "sdxl.safetensors")]
        command += ["--targets", str(folder / f"{target}.safetensors"), "--out", str(work / "out"), "--method", "project", "--force"]
        with cache_in(work):
            found = measure([*command, "--device", "cpu", "--jobs", str(jobs), "--json"], torch.get_num_threads())
    return found.seconds, found.peak


def resize(lora: Path, out: Path, rank: int, scripts: Path, python: Path) -> dict[str, float]:
    """(c) Seconds of cutting a file to a lower rank: sd-scripts' two tools, less what they take to import their modules, and ours."""
    paths = os.pathsep.join((str(scripts), str(scripts / "networks")))
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"}
    common = ["--save_precision", "fp16", "--new_rank", str(rank), "--device", "cpu", "--save_to", str(out)]
    theirs = {
        "resize_lora.py": ["networks/resize_lora.py", "--model", str(lora), *common],
        "svd_merge_lora.py": ["networks/svd_merge_lora.py", "--models", str(lora), "--ratios", "1.0", "--precision", "float", *common],
    }
    found: dict[str, float] = {}
    for name, words in theirs.items():
        module = f"import networks.{words[0][9:-3]}"
        start = min(_seconds([str(python), "-c", module], environment, scripts) for _ in range(2))
        found[name] = _seconds([str(python), *words], environment, scripts) - start
    start = time.perf_counter()
    adapter = read_adapter(lora)
    cut = {i: m.factors().compressed(rank) for i, m in adapter.modules.items() if isinstance(m, LowRank)}
    write_adapter(out, cut, adapter.arch, shapes={i: adapter.modules[i].shape for i in cut}, metadata={}, overwrite=True)
    found["LoRA-X"] = time.perf_counter() - start
    return found


def _seconds(command: list[str], environment: dict[str, str], folder: Path) -> float:
    start = time.perf_counter()
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:3])} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return time.perf_counter() - start


def many(folder: Path, target: str, count: int, wanted: Callable[[str], bool]) -> tuple[int, list[float], int]:
    """(e) Different small LoRAs, projected one after the other from an empty cache: (modules, seconds of each, peak bytes)."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        paths = [work / f"{i}.safetensors" for i in range(count)]
        modules = [write_lora(path, wanted, seed=i) for i, path in enumerate(paths)]
        seconds, peak = carry(folder, target, "project", paths, work)
    return modules[0], seconds, peak
