"""What the extension costs in a WebUI with a warm cache: pictures and switches, as interleaved pairs.

    python -m benchmarks.host_cost [a1111|forge|reforge|classic|neo] [pairs]

Needs the variables of tests/hosts/real_a1111.py or tests/hosts/real_forge.py. Each ratio is a median over the pairs with its quartiles:

- a picture with ``<lorax:…>`` against the same exported file through ``<lora:…>``, both applied already (another seed);
- the same where every picture has to apply its network anew (the pairs alternate);
- a switch of checkpoints, and the switch with the first picture after it, against a second WebUI without the extension. Hosts that
  load a model when a picture needs it do nothing in the first.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.hosts.adapters import Adapters, write_random
from tests.hosts.real_a1111 import RealA1111
from tests.hosts.real_forge import OWN_FLAGS, RealForge

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
    alone: tuple[list[float], list[float]] = [], []
    whole: tuple[list[float], list[float]] = [], []
    for n in range(pairs):
        name = names[n % 2]
        order = ((0, with_it, OURS), (1, without, THEIRS.format(name.removeprefix("same_"))))
        for at, bench, prompt in order if n % 4 < 2 else reversed(order):
            alone[at].append(timed(lambda b=bench, name=name: b.switch(name)))
            whole[at].append(alone[at][-1] + timed(lambda b=bench, p=prompt: b.picture(p)))
    show(f"switch {names[0]} - {names[1]}", *alone)
    show("  and the picture after it", *whole)


def prepare(bench: RealA1111) -> None:
    adapters = Adapters(bench)
    write_random(adapters.lora / "plain.safetensors", adapters.checkpoint("a"), seed=3)
    for target in ("a", "b"):
        adapters.export("plain", "a", target)
        bench.switch(target)
        bench.picture(THEIRS.format(target))


def boot(host: str, extension: bool) -> RealA1111:
    return RealA1111(extension=extension) if host == "A1111" else RealForge(host, extension=extension)


def main() -> None:
    host = sys.argv[1].upper() if len(sys.argv) > 1 else "A1111"
    pairs = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    if host not in ("A1111", *OWN_FLAGS):
        raise SystemExit(f"'{host.lower()}' is no host of this benchmark; give a1111, {', '.join(name.lower() for name in OWN_FLAGS)}")
    with_it, without = boot(host, extension=True), boot(host, extension=False)
    try:
        for bench in (with_it, without):
            prepare(bench)
        for target in ("b", "a"):
            with_it.switch(target)
            with_it.picture(OURS)
        print(f"{host:30} {'ours':>10} {'theirs':>11}")
        pictures(with_it, pairs)
        switches(with_it, without, ("b", "a"), pairs)
        if "same_b" in with_it.checkpoints:
            switches(with_it, without, ("same_b", "same_a"), pairs)
    finally:
        with_it.close()
        without.close()


if __name__ == "__main__":
    assert Path("lorax").is_dir(), "run it from the repository's root"
    main()
