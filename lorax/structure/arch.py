"""A base-model architecture: its blocks, its family, and what its files are called elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from lorax.layers import Component, LayerId, LayerSpec
from lorax.structure.blocks import TextStructure, UNetStructure
from lorax.structure.channels import Wiring, text_wiring, unet_wiring
from lorax.structure.text import text_layers
from lorax.structure.unet import unet_layers


@dataclass(frozen=True)
class Arch:
    """One architecture. Two archs of one family take each other's adapters where blocks correspond; families never do."""

    name: str
    """``sd1``, ``ssd-1b``, …; ``<family>-custom`` for a pruning that we do not know by name."""
    family: str
    """``sd1``, ``sd2`` or ``sdxl``."""
    title: str
    """For people."""
    unet: UNetStructure | None
    """None for files that hold text encoders alone."""
    text: tuple[tuple[Component, TextStructure], ...]
    kohya_unet: Literal["diffusers", "single_file"]
    """Which layout's paths kohya-style names are written from: diffusers for SD1 and SD2, SGM for the SDXL family."""
    base_model_version: str
    """``ss_base_model_version`` in a LoRA's metadata."""
    modelspec_architecture: str
    """``modelspec.architecture`` of the base; a LoRA's adds ``/lora``."""

    @property
    def components(self) -> tuple[Component, ...]:
        unet = (Component.UNET,) if self.unet else ()
        return unet + tuple(component for component, _ in self.text)

    def layers(self) -> tuple[LayerSpec, ...]:
        """All layers of the UNet and the text encoders, each component in order of execution."""
        return _layers(self.unet, self.text)

    def specs(self) -> dict[LayerId, LayerSpec]:
        """`layers` by id."""
        return {spec.id: spec for spec in self.layers()}

    def wiring(self, context: bool = True) -> Wiring:
        """The channel spaces of every linear layer, convolution and embedding; norms have none.

        context: the UNet reads the streams of this architecture's text encoders; else a fixed space of its own.
        """
        return _wiring(self.unet, self.text, context)

    def with_parts(self, unet: UNetStructure | None, text: tuple[tuple[Component, TextStructure], ...]) -> Arch:
        """This architecture with what a file really holds: SD2's text encoder has 23 layers in diffusers and 24 in one file."""
        return replace(self, unet=unet, text=text)


@lru_cache(maxsize=64)
def _layers(unet: UNetStructure | None, text: tuple[tuple[Component, TextStructure], ...]) -> tuple[LayerSpec, ...]:
    specs = list(unet_layers(unet)) if unet else []
    for component, structure in text:
        specs.extend(text_layers(component, structure))
    return tuple(specs)


@lru_cache(maxsize=64)
def _wiring(unet: UNetStructure | None, text: tuple[tuple[Component, TextStructure], ...], context: bool) -> Wiring:
    found = {layer: sides for component, structure in text for layer, sides in text_wiring(component, structure).items()}
    return {**found, **(unet_wiring(unet, [c for c, _ in text] if context else []) if unet else {})}
