"""Carried adapters as patches of the host's own kind, on copies of the patchers that the built-in left."""

from __future__ import annotations

import contextlib
import weakref
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lorax.errors import NotTransferable
from lorax.hosts.base import Carried
from lorax.hosts.forge.models import how_to_load
from lorax.safefile import open_tensors


@dataclass(frozen=True)
class Part:
    """One adapter of a picture, at its strengths."""

    carried: Carried
    unet: float
    te: float


Request = tuple[tuple[str, float, float], ...]
"""(identity, UNet, text encoder) of every part: equal requests on equal patchers are the same patches."""


def identity(carried: Carried) -> str:
    """What the host keeps a patch by; it merges again only where this or a strength differs, so it holds the content."""
    return f"lorax:{carried.name}#{carried.digest}"


@dataclass
class Pair:
    """The patchers of a model with a request on them."""

    base_unet: Any
    base_clip: Any
    unet: Any
    clip: Any
    refused: tuple[str, ...]
    """One line for each adapter that the host did not take."""


@dataclass
class Placed:
    """What is on one model, and what was made for it before."""

    current: Pair | None = None
    made: OrderedDict[tuple[int, int, Request, str], Pair] = field(default_factory=OrderedDict[tuple[int, int, Request, str], Pair])


class Placer:
    """Puts requests on models and takes them off; a model that the host lets go of is not kept."""

    def __init__(self) -> None:
        self._models: weakref.WeakKeyDictionary[Any, Placed] = weakref.WeakKeyDictionary()

    def place(self, networks: Any, model: Any, parts: Sequence[Part], keep: int) -> tuple[str, ...]:
        """These parts and no others, on what the built-in left on the model. Returns what the host refused.

        keep: how many requests are remembered for each model: hosts that know patches by the object merge those not again.
        """
        self.withdraw()
        placed = self._models.setdefault(model, Placed())
        if not parts:
            return ()
        left = model.forge_objects_after_applying_lora
        named = list(zip(identities(parts), parts, strict=True))
        how = how_to_load(networks, model)
        key = id(left.unet), id(left.clip), tuple((name, p.unet, p.te) for name, p in named), str(how)
        pair = placed.made.get(key)
        if pair is None:
            pair = placed.made[key] = patch(networks, left.unet, left.clip, named, how)
        placed.made.move_to_end(key)
        while len(placed.made) > max(1, keep):
            placed.made.popitem(last=False)
        placed.current = pair
        model.forge_objects_after_applying_lora = left.shallow_copy()
        for objects in (model.forge_objects_after_applying_lora, model.forge_objects):
            objects.unet, objects.clip = pair.unet, pair.clip
        return pair.refused

    def withdraw(self) -> None:
        """Give every model the patchers back that it had."""
        for model, placed in list(self._models.items()):
            if (pair := placed.current) is not None:
                for objects in (model.forge_objects_after_applying_lora, model.forge_objects):
                    _give_back(objects, pair)
            placed.current = None

    def forget(self) -> None:
        self.withdraw()
        self._models.clear()


def _give_back(objects: Any, pair: Pair) -> None:
    """Only what is ours: the host may have put its own there since."""
    if getattr(objects, "unet", None) is pair.unet:
        objects.unet = pair.base_unet
    if getattr(objects, "clip", None) is pair.clip:
        objects.clip = pair.base_clip


def identities(parts: Sequence[Part]) -> list[str]:
    """One for each; an adapter that is there twice counts twice."""
    seen: Counter[str] = Counter()
    names: list[str] = []
    for part in parts:
        name = identity(part.carried)
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}/{seen[name]}")
    return names


def patch(networks: Any, unet: Any, clip: Any, named: Sequence[tuple[str, Part]], how: Mapping[str, Any]) -> Pair:
    """Every part through the host's own loader, which knows its own low-bit weights."""
    base_unet, base_clip = unet, clip
    refused: list[str] = []
    for name, part in named:
        state = read_state(part.carried)
        before = unet, clip
        unet, clip = networks.load_lora_for_models(unet, clip, dict(state), part.unet, part.te, filename=name, **how)
        if left_out := _not_taken(state, before, (unet, clip)):
            refused.append(f"'{part.carried.name}': the WebUI's loader did not take {left_out} (its console says why)")
    return Pair(base_unet, base_clip, unet, clip, tuple(refused))


def read_state(carried: Carried) -> dict[str, Tensor]:
    """The tensors of a carried file, by its own names. NotTransferable where it has none: hosts divide by their number."""
    with contextlib.closing(open_tensors(carried.path)) as file:
        state = {name: file.read(name) for name in file.tensors}
    if not state:
        raise NotTransferable(f"nothing of '{carried.name}' fits this checkpoint")
    return state


def _not_taken(state: Mapping[str, Tensor], before: tuple[Any, Any], after: tuple[Any, Any]) -> str:
    """The host returns the patcher that it was given where it refuses."""
    of_te = any(name.startswith("lora_te") for name in state)
    of_unet = any(name.startswith("lora_unet") for name in state)
    parts = ["the UNet part"] if of_unet and after[0] is before[0] else []
    parts += ["the text-encoder part"] if of_te and after[1] is before[1] else []
    return " and ".join(parts)
