"""What the extension costs in AUTOMATIC1111's WebUI: pictures and switches, as interleaved pairs.

    python -m benchmarks.host_a1111 [pairs]

Needs the variables of tests/hosts/real_a1111.py. Three ratios, each a median over the pairs with its quartiles:

- a picture with ``<lorax:…>`` against the same exported file through ``<lora:…>``, both applied already (another seed);
- the same where every picture has to apply its network anew (the pairs alternate);
- a switch of checkpoints, each followed by a picture outside the measured time, against a second WebUI without the extension.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.hosts.adapters import Adapters, write_random
from tests.hosts.real_a1111 import RealA1111

OURS, THEIRS = "a cat <lorax:plain:1>", "a cat <lora:plain-for-{}:1>"


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def show(what: str, ours: list[float], theirs: list[float]) -> None:
    """Medians in ms, and the ratio of each pair: median and quartiles."""
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    low, middle, high = statistics.quantiles(ratios, n=4)
    a, b = (statistics.median(times) * 1000 for times in (ours, theirs))
    print(f"{what:30} {a:7.0f} ms  {b:7.0f} ms   ratio {middle:.3f}  [{low:.3f} … {high:.3f}]  {len(ratios)} pairs", flush=True)


def pictures(bench: RealA1111, pairs: int) -> None:
    applied: tuple[list[float], list[float]] = [], []
    changing: tuple[list[float], list[float]] = [], []
    for n in range(pairs):
        order = ((0, OURS), (1, THEIRS.format("a")))
        for at, prompt in order if n % 2 else reversed(order):
            changing[at].append(timed(lambda p=prompt, n=n: bench.picture(p, seed=2 * n, steps=8)))
            applied[at].append(timed(lambda p=prompt, n=n: bench.picture(p, seed=2 * n + 1, steps=8)))
    show("picture, applied already", *applied)
    show("picture, applied anew", *changing)


def switches(with_it: RealA1111, without: RealA1111, names: tuple[str, str], pairs: int) -> None:
    times: tuple[list[float], list[float]] = [], []
    for n in range(pairs):
        name = names[n % 2]
        order = ((0, with_it, OURS), (1, without, THEIRS.format(name.removeprefix("same_"))))
        for at, bench, prompt in order if n % 4 < 2 else reversed(order):
            times[at].append(timed(lambda b=bench, name=name: b.switch(name)))
            bench.picture(prompt)
    show(f"switch {names[0]} - {names[1]}", *times)


def prepare(bench: RealA1111) -> None:
    adapters = Adapters(bench)
    write_random(adapters.lora / "plain.safetensors", adapters.checkpoint("a"), seed=3)
    for target in ("a", "b"):
        adapters.export("plain", "a", target)
        bench.switch(target)
        bench.picture(THEIRS.format(target))


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with_it, without = RealA1111(), RealA1111(extension=False)
    try:
        for bench in (with_it, without):
            prepare(bench)
        for target in ("b", "a"):
            with_it.switch(target)
            with_it.picture(OURS)
        print(f"{'':30} {'ours':>10} {'theirs':>11}")
        pictures(with_it, pairs)
        switches(with_it, without, ("b", "a"), pairs)
        switches(with_it, without, ("same_b", "same_a"), pairs)
    finally:
        with_it.close()
        without.close()


if __name__ == "__main__":
    assert Path("lorax").is_dir(), "run it from the repository's root"
    main()
