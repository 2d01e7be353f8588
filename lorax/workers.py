"""Layers side by side: one thread reads ahead, the others compute, each with one core of torch's.

One core for one layer is faster than all cores for one layer after the other, because decompositions hardly share work; and the
rounding of a result then does not depend on how many cores there are.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

BUDGET = 256 << 20
"""Bytes of weights that may be read and not yet done with; computing takes about twice that beside. A process that was given a
share of the cores takes that share of the bytes too."""
CORES = torch.get_num_threads()

_lock = threading.Lock()
_inside = 0
_threads = 1

Item = TypeVar("Item")
Data = TypeVar("Data")
Result = TypeVar("Result")


@contextmanager
def single_threaded() -> Generator[int]:
    """torch computes with one thread for as long as a block of this kind runs, anywhere in the process: torch has one such setting.

    Yields the number of threads that it had.
    """
    global _inside, _threads
    with _lock:
        if _inside == 0:
            _threads = torch.get_num_threads()
            torch.set_num_threads(1)
        _inside += 1
    try:
        yield _threads
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                torch.set_num_threads(_threads)


def in_order(
    items: Iterable[Item],
    read: Callable[[Item], Data],
    work: Callable[[Item, Data], Result],
    nbytes: Callable[[Item], int],
    device: torch.device,
) -> Generator[Result]:
    """``work(item, read(item))`` of each item, in the order of `items`; close the generator to stop early.

    nbytes: size of what `read` gives, so that no more than `BUDGET` (or one item) is in memory at a time. On a GPU one thread
    computes, for they would only wait for each other there.
    """
    with single_threaded() as threads:
        threads = threads if device.type == "cpu" else 1
        reader, workers = ThreadPoolExecutor(1, "lorax-read"), ThreadPoolExecutor(threads, "lorax-work")
        budget = BUDGET * min(threads, CORES) // CORES
        waiting: deque[tuple[Future[Result], int]] = deque()
        held = 0
        try:
            for item in items:
                size = nbytes(item)
                while waiting and (held + size > budget or len(waiting) > 2 * threads):
                    future, freed = waiting.popleft()
                    yield future.result()
                    held -= freed
                waiting.append((_start(reader, workers, read, work, item), size))
                held += size
            while waiting:
                yield waiting.popleft()[0].result()
        finally:
            for pool in (reader, workers):
                pool.shutdown(wait=False, cancel_futures=True)
            for pool in (reader, workers):
                pool.shutdown(wait=True)


def _start(
    reader: ThreadPoolExecutor, workers: ThreadPoolExecutor, read: Callable[[Item], Data], work: Callable[[Item, Data], Result], item: Item
) -> Future[Result]:
    data = [reader.submit(read, item)]
    return workers.submit(lambda: work(item, data.pop().result()))
