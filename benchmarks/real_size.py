"""Time and memory of the main job at true size, on random weights: SDXL's rank-32 LoRA, and a LoRA of every linear and
convolutional layer, onto a fine-tune and onto SSD-1B, each from cold.

    python benchmarks/real_size.py [--folder DIR] [--threads N]

Writes about 17 GB of random fp16 checkpoints into DIR (default: a temporary folder, removed afterwards), then runs the command
line and samples its anonymous memory (RssAnon of /proc/PID/status; mapped files do not count). Random weights say nothing about
quality. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from converter.samples import Widths, block_map
from converter.samples.layouts import place
from converter.samples.widths import has_bias, layer_shapes
from lorax.archs import by_name
from lorax.formats import write_adapter
from lorax.layers import Component, LayerId, LayerKind, LayerSpec
from lorax.linalg import Factors
from lorax.safefile import TensorInfo, stream_safetensors
from lorax.structure import Arch

TRUE_SIZE = Widths(channels=(320, 640, 1280, 1280), groups=32, text1=768, text2=1280, vocabulary=49408, size_embedding=256)
NOISE = 0.3
"""Distance of the relatives: share of a weight's norm that is replaced."""


def tensor_list(arch: Arch) -> dict[str, tuple[LayerSpec, tuple[int, ...]]]:
    """Every tensor of the single file: its (last) layer, and its shape."""
    shapes = layer_shapes(arch, TRUE_SIZE)
    found: dict[str, tuple[LayerSpec, tuple[int, ...]]] = {}
    for spec in arch.layers():
        name, stored = place(arch, spec, "single_file")
        shape = shapes[spec.id]
        found[name] = spec, (shape[0] * stored.parts, *shape[1:])
        if has_bias(spec):
            found[name.removesuffix("weight") + "bias"] = spec, (shape[0] * stored.parts,)
    return found


def gaussian(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.02


def write_base(path: Path, arch: Arch, origin: Callable[[str, LayerSpec], str], noise: float) -> None:
    """A random checkpoint; `origin` names the source's tensor that each tensor comes from."""
    tensors = tensor_list(arch)

    def read(name: str) -> torch.Tensor:
        spec, shape = tensors[name]
        value = gaussian(origin(name, spec), shape)
        if noise and spec.id.component == Component.UNET:
            value = value * (1 - noise**2) ** 0.5 + noise * gaussian(f"{path.stem} {name}", shape)
        return (1 + value if spec.kind == LayerKind.NORM and name.endswith("weight") else value).half()

    stream_safetensors(path, [TensorInfo(name, "F16", shape) for name, (_, shape) in tensors.items()], read, {})


def write_family(folder: Path) -> None:
    sdxl, ssd = by_name("sdxl"), by_name("ssd-1b")
    blocks, specs = block_map(sdxl, ssd), sdxl.specs()

    def kept(name: str, spec: LayerSpec) -> str:
        if spec.id.component != Component.UNET or not spec.unit.path:
            return name
        source = specs[LayerId(spec.id.component, f"{blocks[spec.unit.path]}.{spec.role}")]
        return place(sdxl, source, "single_file")[0].removesuffix("weight") + ("bias" if name.endswith("bias") else "weight")

    for name, arch, origin, noise in (
        ("sdxl", sdxl, lambda n, s: n, 0.0),
        ("finetune", sdxl, lambda n, s: n, NOISE),
        ("ssd1b", ssd, kept, NOISE),
    ):
        if not (folder / f"{name}.safetensors").exists():
            print(f"writing {name}", file=sys.stderr)
            write_base(folder / f"{name}.safetensors", arch, origin, noise)
    if not (folder / "lora.safetensors").exists():
        write_lora(folder / "lora.safetensors", sdxl, attention_and_ff)
    if not (folder / "locon.safetensors").exists():
        write_lora(folder / "locon.safetensors", sdxl, lambda spec: spec.kind in (LayerKind.LINEAR, LayerKind.CONV))


def attention_and_ff(spec: LayerSpec) -> bool:
    return spec.unit.kind == "transformer" and spec.kind == LayerKind.LINEAR


def write_lora(path: Path, arch: Arch, wanted: Callable[[LayerSpec], bool], rank: int = 32) -> None:
    every = layer_shapes(arch, TRUE_SIZE)
    shapes = {s.id: every[s.id] for s in arch.layers() if wanted(s)}
    modules = {i: Factors(torch.randn(n, rank) * 0.02, torch.randn(rank, math.prod(m)) * 0.02) for i, (n, *m) in shapes.items()}
    metadata: Mapping[str, str] = {"ss_base_model_version": arch.base_model_version, "ss_network_dim": str(rank)}
    write_adapter(path, modules, arch, shapes=shapes, metadata=metadata)


def anonymous_bytes(pid: int) -> int:
    """Of a process and all that it started."""
    total = 0
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            total = int(line.split()[1]) * 1024
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            total += sum(anonymous_bytes(int(child)) for child in children.read_text().split())
    return total


@dataclass(frozen=True)
class Measured:
    seconds: float
    cpu_seconds: float
    """Over all threads: what stays the same when other work shares the machine."""
    peak: int
    """Anonymous bytes."""
    report: Mapping[str, object]
    """The JSON that the command printed."""


def measure(command: list[str], threads: int) -> Measured:
    start, peak = time.perf_counter(), 0
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
        while process.poll() is None:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                peak = max(peak, anonymous_bytes(process.pid))
            time.sleep(0.05)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
        out.seek(0)
        report = json.load(out)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(time.perf_counter() - start, cpu, peak, report)


def run(folder: Path, threads: int) -> None:
    columns = ("rank 32", "seconds", "CPU seconds", "peak RssAnon", "above the file", "modules", "energy kept", "verdict")
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    adapters = {"lora": "LoRA (attention, FF)", "locon": "LoRA of every layer"}
    for (adapter, words), target, method in itertools.product(adapters.items(), ("finetune", "ssd1b"), ("auto", "align", "project")):
        file, out = folder / f"{adapter}.safetensors", folder / f"out-{adapter}-{target}-{method}.safetensors"
        command = [sys.executable, "-m", "converter", "transfer", str(file), "--source", str(folder / "sdxl.safetensors")]
        command += ["--target", str(folder / f"{target}.safetensors"), "-o", str(out), "--method", method]
        command += ["--device", "cpu", "--force", "--json"]
        with tempfile.TemporaryDirectory(dir=folder) as cache:
            measured = measure(["env", f"LORAX_CACHE={cache}", *command], threads)
        report = measured.report
        row = (
            f"{words}, SDXL → {target}, `--method {method}`",
            f"{measured.seconds:.0f}",
            f"{measured.cpu_seconds:.0f}",
            f"{measured.peak / 2**30:.2f} GiB",
            f"{(measured.peak - file.stat().st_size) / 1e9:.2f} GB",
            f"{report['modules_out']} of {report['modules_in']}",
            f"{report['energy_kept']:.3f}",
            str(report["verdict"]),
        )
        print(f"| {' | '.join(row)} |", flush=True)
        out.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the random checkpoints lie or are written; kept")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
        write_family(options.folder)
        run(options.folder, options.threads)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_family(Path(folder))
        run(Path(folder), options.threads)


if __name__ == "__main__":
    main()
