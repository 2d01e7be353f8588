"""What to expect of an adapter on a base, found in the background and kept: the verdict of a plan, without its run."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from lorax.errors import BaseMismatch, Cancelled, FileError, LoraxError, NotTransferable, SourceNeeded
from lorax.hosts.base import Forecast, KnownBase, RetargetOptions, Wish
from lorax.retarget.warming import Warmer
from lorax.retarget.work import Job
from lorax.safefile import write_text
from lorax.transfer.types import Progress, TransferPlan

LIMIT = 4096
"""Forecasts that are kept on disk; the oldest go first."""

Ask = tuple[Wish, KnownBase, RetargetOptions]


class Forecasts:
    """Forecasts by what was asked for, in memory; and by content, in a JSON file."""

    def __init__(self, path: Path, key: Callable[..., Hashable], predict: Callable[..., Forecast]) -> None:
        """key: of a wish, a base and options; equal for the same files and settings, without reading them. predict: the work,
        with a progress."""
        self._path = path
        self._key = key
        self._predict = predict
        self._by_key: dict[Hashable, Forecast] = {}
        self._by_content = _read(path)
        self._lock = threading.Lock()
        self._warmer = Warmer(self._foresee)

    def known(self, key: Callable[[], Hashable]) -> Forecast | None:
        """None: not found yet. key: may raise LoraxError where a file is gone."""
        try:
            return self._by_key.get(key())
        except LoraxError:
            return None

    def want(self, asks: Sequence[Ask]) -> None:
        """Find these in the background, in their order; a later call replaces an earlier one."""
        self._warmer.want(asks)

    @property
    def busy(self) -> bool:
        return self._warmer.busy

    def _foresee(self, wish: Wish, base: KnownBase, options: RetargetOptions, progress: Progress) -> None:
        key = self._key(wish, base, options)
        if key not in self._by_key:
            self._by_key[key] = self._predict(wish, base, options, progress)

    def by_content(self, digest: str, compute: Callable[[], Forecast]) -> Forecast:
        """The forecast of a job with this digest; refusals are cheap to find and are not kept on disk."""
        found = self._by_content.get(digest)
        if found is None:
            found = compute()
            with self._lock:
                self._by_content[digest] = found
                while len(self._by_content) > LIMIT:
                    del self._by_content[next(iter(self._by_content))]
                self._save()
        return found

    def _save(self) -> None:
        rows = {digest: astuple(forecast) for digest, forecast in self._by_content.items()}
        with contextlib.suppress(FileError, OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._path, json.dumps(rows, indent=0), overwrite=True)


def forecast_of(plan: TransferPlan, job: Job) -> Forecast:
    """A plan in a few words. A file that a transfer made for this very base was judged then, and fits."""
    source = job.source.name if job.source else ""
    if job.source is None and "made by a transfer" in job.source_reason:
        return Forecast("same base", f"a transfer made it for {job.target.name}", source)
    reason = plan.verdict_reason if job.source else f"{plan.adapter_name} {job.source_reason}: only names and shapes could be checked"
    return Forecast(plan.verdict, reason, source)


def refusal(error: LoraxError) -> Forecast:
    """What an error says of an adapter. Raises Cancelled again."""
    if isinstance(error, Cancelled):
        raise error
    if isinstance(error, SourceNeeded):
        return Forecast("base needed", str(error))
    if isinstance(error, NotTransferable | BaseMismatch):
        return Forecast("not transferable", str(error))
    return Forecast("unreadable", str(error))


def _read(path: Path) -> dict[str, Forecast]:
    """A file that cannot be read costs time, nothing else."""
    try:
        rows: Any = json.loads(path.read_text(encoding="utf-8"))
        return {str(digest): Forecast(*map(str, row)) for digest, row in rows.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
