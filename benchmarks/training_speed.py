"""Time and memory of a training step: LoRA-X beside peft's LoRA at r = 32, on the same modules, in one run.

``python benchmarks/training_speed.py [--device cuda] [--dtype bf16] [--shapes sdxl] [--depth 4] [--rounds 20]``

Attention projections of true widths and token counts, as many of each shape as the architecture has (or `--depth` of each); forward,
backward with the gradient of the input, AdamW. The contestants take turns, so other load on the machine hits all of them. Only the
projections are measured: a whole UNet spends most of its time elsewhere, so the ratios of real runs are nearer to 1.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lorax.linalg import flatten_weight
from lorax.spectral import SpectralBasis
from lorax.train import Network
from lorax.train.forms import choose_form

SHAPES: dict[str, list[tuple[int, int, int, int]]] = {
    "sd1": [(320, 320, 4096, 30), (640, 640, 1024, 30), (1280, 1280, 256, 36), (320, 768, 77, 10), (640, 768, 77, 10), (1280, 768, 77, 12)],
    "sdxl": [(640, 640, 4096, 60), (1280, 1280, 1024, 360), (640, 2048, 77, 20), (1280, 2048, 77, 120)],
}
"""(out, in, tokens of one picture at 512² or 1024², how many) of the attention's projections: 128 and 560."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PutOn = Callable[["Stack"], tuple[list[nn.Parameter], int]]
"""Put something on the model: (what is trained, bytes of frozen bases)."""


class Stack(nn.Module):
    """Projections side by side, the sum of their outputs' squares; layers of one shape share their input."""

    def __init__(self, shapes: list[tuple[int, int, int, int]], depth: int | None, batch: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        self.inputs: list[tuple[int, int]] = []
        for out, columns, tokens, count in shapes:
            for _ in range(count if depth is None else min(depth, count)):
                self.layers.append(nn.Linear(columns, out, bias=False))
                self.inputs.append((tokens * batch, columns))

    def forward(self, features: dict[tuple[int, int], Tensor]) -> Tensor:
        total = torch.zeros((), device=next(iter(features.values())).device)
        for layer, size in zip(self.layers, self.inputs, strict=True):
            total = total + layer(features[size]).mean()
        return total


class RandomBases:
    """Orthonormal vectors of the right shapes, in place of `lorax.bases.Bases`: the time does not depend on which."""

    def basis(self, weight: Tensor, k: int) -> SpectralBasis:
        out, columns = flatten_weight(weight).shape
        n = min(k, out, columns)
        U, V = (torch.linalg.qr(torch.randn(size, n, device=weight.device)).Q for size in (out, columns))
        return SpectralBasis(U, torch.ones(n, device=weight.device), V)


@dataclass
class Contestant:
    """A model with something to train on it."""

    name: str
    model: Stack
    features: dict[tuple[int, int], Tensor]
    optimizer: torch.optim.Optimizer
    frozen_bytes: int
    numbers: int
    seconds: list[float] = field(default_factory=list)

    def step(self) -> None:
        device = next(iter(self.features.values())).device
        start = time.perf_counter()
        dtype = next(iter(self.features.values())).dtype
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = self.model(self.features)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        for x in self.features.values():
            x.grad = None
        if device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - start)


def contestants(args: argparse.Namespace) -> dict[str, PutOn]:
    forms = {f"LoRA-X k={args.k} {form}": lorax(form, args.k) for form in ("auto", "factored", "merged")}
    return {"frozen base": nothing, f"peft LoRA r={args.rank}": lora(args.rank), **forms}


def make(name: str, args: argparse.Namespace) -> Contestant:
    torch.manual_seed(0)
    dtype = DTYPES[args.dtype]
    with torch.device(args.device):
        model = Stack(SHAPES[args.shapes], args.depth, args.batch).to(dtype).requires_grad_(False)
        features = {size: torch.randn(size, dtype=dtype).requires_grad_() for size in dict.fromkeys(model.inputs)}
    parameters, frozen = contestants(args)[name](model)
    return Contestant(name, model, features, torch.optim.AdamW(parameters, lr=1e-4), frozen, sum(p.numel() for p in parameters))


def lora(rank: int) -> PutOn:
    def put_on(model: Stack) -> tuple[list[nn.Parameter], int]:
        from peft import LoraConfig, inject_adapter_in_model

        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=r"layers\.\d+"), model)
        trained = [p for p in model.parameters() if p.requires_grad]
        for p in trained:
            p.data = p.data.float()
        return trained, 0

    return put_on


def lorax(form: str, k: int) -> PutOn:
    def put_on(model: Stack) -> tuple[list[nn.Parameter], int]:
        layers = {f"l{i}": layer for i, layer in enumerate(model.layers)}
        network = Network(layers, k, form=form)  # type: ignore[arg-type]
        weight = model.layers[0].weight
        network.put_on(RandomBases(), device=str(weight.device))  # type: ignore[arg-type]
        adapters = network.modules_by_name.values()
        for adapter in adapters:
            adapter._bases(weight.device, weight.dtype)
        return list(network.parameters()), sum(a.U.nbytes + a.V.nbytes for a in adapters)

    return put_on


def nothing(model: Stack) -> tuple[list[nn.Parameter], int]:
    return [nn.Parameter(torch.zeros(1, device=model.layers[0].weight.device))], 0


def peak_mib(name: str, args: argparse.Namespace) -> float:
    """Of one contestant alone: on a GPU what was allocated, on a CPU the largest size of the process."""
    contestant = make(name, args)
    if args.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    for _ in range(3):
        contestant.step()
    if args.device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def measure(args: argparse.Namespace) -> list[dict[str, float | str]]:
    told = [word for word in sys.argv[1:] if word != "--json"]
    peaks: list[float] = []
    for name in contestants(args):
        done = subprocess.run([sys.executable, __file__, *told, "--peak", name], capture_output=True, text=True, check=True)
        peaks.append(float(done.stdout))
    rivals = [make(name, args) for name in contestants(args)]
    for turn in range(args.rounds + 2):
        for rival in rivals:
            rival.step()
            if turn < 2:
                rival.seconds.clear()
    lora_ms, lora_peak = 1000 * statistics.median(rivals[1].seconds), peaks[1]
    return [
        {
            "what": rival.name,
            "ms": (ms := 1000 * statistics.median(rival.seconds)),
            "best_ms": 1000 * min(rival.seconds),
            "time_ratio": ms / lora_ms,
            "peak_mib": peak,
            "peak_ratio": peak / lora_peak,
            "bases_mib": rival.frozen_bytes / 2**20,
            "numbers": rival.numbers,
        }
        for rival, peak in zip(rivals, peaks, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16" if torch.cuda.is_available() else "fp32")
    parser.add_argument("--shapes", choices=SHAPES, default="sd1")
    parser.add_argument("--depth", type=int, help="at most so many projections of each shape")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--k", type=int, default=320)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        print(peak_mib(args.peak, args))
        return
    rows = measure(args)
    if args.json:
        print(json.dumps({"settings": vars(args), "rows": rows}))
        return
    where = torch.cuda.get_device_name() if args.device.startswith("cuda") else f"CPU, {torch.get_num_threads()} threads"
    print(f"{args.shapes} attention, batch {args.batch}, {args.dtype}, {where}, torch {torch.__version__}")
    for out, columns, tokens, _ in SHAPES[args.shapes]:
        form = choose_form(out, columns, args.k, tokens * args.batch, DTYPES[args.dtype])
        print(f"  [{out}, {columns}] at {tokens * args.batch} tokens: {form}")
    for row in rows:
        print(
            f"{row['what']:24s} {row['ms']:9.1f} ms  ×{row['time_ratio']:.2f}  best {row['best_ms']:.1f}   peak {row['peak_mib']:6.0f} MiB"
            f"  ×{row['peak_ratio']:.2f}   bases {row['bases_mib']:5.0f} MiB   trains {row['numbers']:.0f}"
        )


if __name__ == "__main__":
    main()
