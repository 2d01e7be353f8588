"""LoRA-X files that ``<lora:…>`` names: the built-in's loader gets what was made for the checkpoint in their place."""

from __future__ import annotations

import inspect
import sys
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lorax.hosts.base import Carried, KnownBase, RetargetOptions, Service
from lorax.hosts.forge.models import active_model
from lorax.hosts.forge.placing import identity, read_state
from lorax.transfer.types import Progress

Carry = Callable[[Service, KnownBase, RetargetOptions, Progress], Carried]
NEVER = str(["lorax"])
"""No list of networks has this hash, so that the built-in makes its patches anew."""


class NativeFiles:
    """Stands around ``networks.load_lora_for_models``, which the built-in calls for each ``<lora:…>`` in turn."""

    def __init__(self, carry: Callable[[Carry, str], Carried | None]) -> None:
        """carry: guards the work, and says what went wrong."""
        self._carry = carry
        self._digests: weakref.WeakKeyDictionary[Any, dict[Path, str]] = weakref.WeakKeyDictionary()

    def around_load(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """(unet, clip, tensors, strength, strength, filename[, …]) as the host calls it."""
        given = list(inspect.signature(original).bind(*args, **kwargs).args)
        path = Path(str(given[5])) if len(given) > 5 else Path()
        if not is_native(path):
            return original(*args, **kwargs)
        carried = self._carry_file(path)
        model = active_model()
        if model is not None:
            self._digests.setdefault(model, {})[path] = "" if carried is None else carried.digest
        if carried is None:
            return given[0], given[1]
        given[2], given[5] = read_state(carried), f"{identity(carried)}/lora"
        return original(*given)

    def check(self, model: Any | None) -> None:
        """Before a picture: where a file or a setting has changed, the built-in's list of networks is no longer what it was."""
        known = {} if model is None else self._digests.get(model, {})
        for path, digest in list(known.items()):
            carried = self._carry_file(path) if path.is_file() else None
            if digest == "" or carried is None or carried.digest != digest:
                del known[path]
                if model is not None:
                    model.current_lora_hash = NEVER

    def content(self, model: Any | None) -> Iterable[tuple[str, str]]:
        """(file, what stands for it) on this model."""
        known = {} if model is None else self._digests.get(model, {})
        return [(str(path), digest) for path, digest in known.items()]

    def forget(self) -> None:
        """The built-in makes its patches anew, without us."""
        for model, known in list(self._digests.items()):
            if known:
                model.current_lora_hash = NEVER
        self._digests.clear()

    def _carry_file(self, path: Path) -> Carried | None:
        return self._carry(lambda service, base, options, progress: service.carry_file(path, base, options, progress), path.stem)


def is_native(path: Path) -> bool:
    """The built-in's list says that this file is a LoRA-X file."""
    listed = getattr(sys.modules.get("networks"), "available_networks", {})
    for entry in listed.values():
        if Path(entry.filename) == path:
            return "lorax.format_version" in (entry.metadata or {})
    return False
