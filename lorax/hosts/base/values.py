"""The values that a host and the retargeting service exchange, and what each is to the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from lorax.library import Entry
from lorax.transfer.types import Method, Progress

UnknownSource = Literal["copy", "refuse"]


@dataclass(frozen=True)
class Wish:
    """One ``<lorax:…>`` of a prompt."""

    name: str
    """As written; resolved among the adapters that were found, never as a path."""
    unet: float = 1.0
    te: float = 1.0
    method: Method | None = None
    """None: as the settings say."""
    k: int | None = None
    """``rank=``: rank of the target's basis."""
    source: str | None = None
    """Name of the base that the adapter was trained on."""

    @property
    def silent(self) -> bool:
        """Strength 0 is no adapter."""
        return self.unet == 0.0 and self.te == 0.0


@dataclass(frozen=True)
class KnownBase:
    """A checkpoint that the host has."""

    path: Path
    names: tuple[str, ...] = ()
    """Every name that the host knows it by."""
    sha256: str | None = None
    """Of the file, where the host has taken it."""
    beside: tuple[Path, ...] = ()
    """Files with its text encoders, where they are not in its own."""

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def spec(self) -> str | Path:
        """What `open_checkpoint` takes."""
        return "+".join(str(p) for p in (self.path, *self.beside)) if self.beside else self.path


@dataclass(frozen=True)
class RetargetOptions:
    """The user's settings for every transfer."""

    method: Method = "auto"
    k: int | None = None
    out_rank: int | None = None
    min_similarity: float | None = None
    device: str = "auto"
    unknown_source: UnknownSource = "copy"
    """What to do where the base that an adapter was trained on is not at hand."""
    sources: tuple[tuple[str, str], ...] = ()
    """(family, name of a checkpoint): the source of adapters that do not tell theirs."""


@dataclass(frozen=True)
class Carried:
    """An adapter made for one base: a standard LoRA file that the host's own loader reads."""

    name: str
    path: Path
    """kohya names, fp32"""
    digest: str
    """Content key: adapter, base, source, settings and algorithm. The same digest means the same tensors."""
    adapter_hash: str
    """First 12 digits by which the adapter is known, for infotexts."""
    summary: str
    """One line on what was done."""
    verdict: str
    note: str = ""
    """One line that the user must see (nothing could be checked, computed on the CPU…), or empty."""


@dataclass(frozen=True)
class Forecast:
    """What to expect of an adapter on a base."""

    verdict: str
    """A `lorax.transfer.types.Verdict`, ``base needed`` or ``unreadable``."""
    reason: str
    """One line."""
    source: str = ""
    """Name of the base that it was trained on, where that is at hand."""


class Service(Protocol):
    """What a host asks of `lorax.retarget`."""

    def carry(self, wish: Wish, base: KnownBase, options: RetargetOptions, progress: Progress) -> Carried:
        """The adapter made for `base`, computed at most once. Raises LoraxError with one line, Cancelled included."""
        ...

    def carry_file(self, path: Path, base: KnownBase, options: RetargetOptions, progress: Progress) -> Carried:
        """The same for an adapter file of the host's own folders."""
        ...

    def warm(self, wishes: Sequence[Wish], base: KnownBase, options: RetargetOptions) -> None:
        """`carry` in the background; a later call replaces an earlier one."""
        ...

    def transfer(
        self, wish: Wish, base: KnownBase, options: RetargetOptions, output: Path, dtype: str, overwrite: bool, progress: Progress
    ) -> dict[str, Any]:
        """Write a standard LoRA for `base` (dtype: fp16, bf16 or fp32) and say what was done, as JSON. Raises LoraxError."""
        ...

    @property
    def warming(self) -> bool:
        """Background work is going on."""
        ...

    def entries(self) -> Sequence[Entry]: ...

    def find(self, name: str) -> Entry:
        """The adapter that a prompt calls so; UnknownFormat with the nearest name."""
        ...

    def forecasts(self, names: Sequence[str], base: KnownBase, options: RetargetOptions) -> dict[str, Forecast | None]:
        """What is known already of these adapters, without any work; None: not yet."""
        ...

    def foresee(self, names: Sequence[str], base: KnownBase, options: RetargetOptions, idle: Callable[[], bool]) -> None:
        """Find the forecasts of these adapters in the background, while `idle`; a later call replaces an earlier one."""
        ...

    def name_of(self, known_by: str) -> str | None:
        """The name of the adapter with this `Carried.adapter_hash`, None where it is not here."""
        ...

    def refresh(self) -> None: ...

    def close(self) -> None: ...


class Host(Protocol):
    """What the extension asks of a host."""

    title: str
    service: Service

    def install(self) -> None:
        """Take a place in the host; twice is once."""
        ...

    def uninstall(self) -> None:
        """Leave no trace in the host."""
        ...

    def active_base(self) -> KnownBase | None:
        """The checkpoint whose weights are in use, None where none is loaded."""
        ...

    def chosen_base(self) -> KnownBase | None:
        """The checkpoint that the next picture will be made with, loaded or not."""
        ...

    def bases(self) -> Sequence[KnownBase]: ...

    def options(self) -> RetargetOptions: ...
