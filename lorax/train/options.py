"""What ``--network_args`` can say: strings in, values out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from lorax.errors import LoraxError, nearest
from lorax.train.forms import FORMS, Form
from lorax.train.targets import TARGETS, parse_target

KINDS = ("diagonal", "full")
_NOT_OURS = ("dropout", "rank_dropout", "module_dropout")
"""LoRA's own options that sd-scripts passes or people leave in place: they have no meaning on a σ, so only 0 is taken."""


@dataclass(frozen=True)
class NetworkOptions:
    """How the network is made."""

    kind: str = "diagonal"
    """``diagonal`` (σ, the paper's) or ``full`` (k×k; its file is self-contained)."""
    target: str = "attn"
    """``attn``, ``ff``, ``linear``, ``conv``, joined by ``+``."""
    exclude: tuple[str, ...] = ()
    """Patterns of canonical layer names, as ``unet.mid_block.*``; separated by commas."""
    self_contained: bool = False
    """Write the factors too, so that every loader takes the file."""
    form: Form = "auto"
    """``auto``, ``factored`` or ``merged``: how the forward pass is computed."""
    device: str = "auto"
    """Where the bases are computed."""

    @property
    def full(self) -> bool:
        return self.kind == "full"


def parse_options(said: Mapping[str, object]) -> NetworkOptions:
    """`said` as sd-scripts passes it. LoraxError with the nearest name for an option that does not exist."""
    known = {f.name: f.name for f in fields(NetworkOptions)}
    values: dict[str, str] = {}
    for name, value in said.items():
        if name in _NOT_OURS:
            if value not in (None, "", "None") and float(str(value)) != 0:
                raise LoraxError(f"{name}={value}: LoRA-X has no dropout; leave it out.")
        elif name not in known:
            words = [*known, "k (--network_dim)"]
            raise LoraxError(f"unknown network argument '{name}': expected {', '.join(words)}.{nearest(name, known)}")
        elif value is not None:
            values[name] = str(value).strip()
    kind, form = values.get("kind", "diagonal"), values.get("form", "auto")
    if kind not in KINDS:
        raise LoraxError(f"unknown kind '{kind}': expected {' or '.join(KINDS)}.{nearest(kind, KINDS)}")
    if form not in FORMS:
        raise LoraxError(f"unknown form '{form}': expected one of {', '.join(FORMS)}.{nearest(form, FORMS)}")
    target = values.get("target", "attn")
    parse_target(target)
    return NetworkOptions(
        kind,
        target,
        tuple(word.strip() for word in values.get("exclude", "").split(",") if word.strip()),
        _truth("self_contained", values.get("self_contained", "false")),
        form,
        values.get("device", "auto"),
    )


def _truth(name: str, word: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if word.lower() not in words:
        raise LoraxError(f"{name}={word}: expected true or false.")
    return words[word.lower()]


__all__ = ["KINDS", "TARGETS", "NetworkOptions", "parse_options"]
