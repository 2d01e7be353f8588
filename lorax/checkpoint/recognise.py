"""Which architecture the networks of the given files make together. Errors continue the sentence "FILE …"."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from lorax.archs import detect, family_parent, foreign
from lorax.checkpoint.parts import Part, place_text_encoders
from lorax.errors import MalformedCheckpoint, UnknownFormat
from lorax.layers import Component
from lorax.structure import Arch, TextStructure, UNetStructure

_EXPECTED = "expected a checkpoint of Stable Diffusion 1, 2 or XL"


def recognise(parts: Sequence[Part], names: Iterable[str]) -> tuple[Arch, dict[Component, Part]]:
    """The architecture, holding the text encoders that are there, and the part of each component.

    names: all tensor names of the files, to say what they are where it is no base model.
    """
    unet = _unet(parts, names)
    family = detect(unet).family
    placed: dict[Component, Part] = {}
    for component, part in place_text_encoders(parts, family):
        if component in placed:
            raise MalformedCheckpoint(f"has {component} twice, in '{placed[component].file.path}' and '{part.file.path}'; give it once")
        placed[component] = part
    declared = dict(family_parent(family).text)
    text: list[tuple[Component, TextStructure]] = []
    for component in (Component.TE1, Component.TE2):
        part = placed.get(component)
        if part is not None and isinstance(part.structure, TextStructure):
            kind = declared[component].kind if part.layout == "diffusers" and component in declared else part.structure.kind
            text.append((component, replace(part.structure, kind=kind)))
    return detect(unet, tuple(text)), placed


def _unet(parts: Sequence[Part], names: Iterable[str]) -> UNetStructure:
    for part in parts:
        if isinstance(part.structure, UNetStructure):
            if what := foreign(part.names):
                raise UnknownFormat(f"is {what}; {_EXPECTED}")
            return part.structure
    if what := foreign(names):
        raise UnknownFormat(f"is {what}; {_EXPECTED}")
    if parts:
        raise UnknownFormat("holds a text encoder but no UNet; give both, joined by '+', as in unet+te1+te2")
    raise UnknownFormat(f"is not a model that we know; {_EXPECTED}")
