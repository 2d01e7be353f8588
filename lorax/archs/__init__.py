"""The base-model architectures that are known, and how a file's blocks are recognised as one of them."""

from __future__ import annotations

from dataclasses import replace

from lorax.archs.bk_sdm import BK_SDM_BASE, BK_SDM_SMALL, BK_SDM_TINY, BK_SDM_V2_BASE, BK_SDM_V2_SMALL, BK_SDM_V2_TINY
from lorax.archs.foreign import SDXL_REFINER, foreign
from lorax.archs.koala import KOALA_1B, KOALA_700M
from lorax.archs.sd1 import SD1
from lorax.archs.sd2 import SD2
from lorax.archs.sdxl import SDXL
from lorax.archs.ssd1b import SSD_1B
from lorax.archs.vega import VEGA
from lorax.errors import UnknownFormat, nearest
from lorax.layers import Component
from lorax.structure import Arch, TextStructure, UNetStructure
from lorax.structure.names import kohya_name, kohya_names, kohya_spellings, peft_name, peft_names

__all__ = [
    "ARCHS",
    "FAMILIES",
    "by_name",
    "detect",
    "family_parent",
    "foreign",
    "kohya_name",
    "kohya_names",
    "kohya_spellings",
    "peft_name",
    "peft_names",
]

ARCHS: tuple[Arch, ...] = (
    SD1,
    BK_SDM_BASE,
    BK_SDM_SMALL,
    BK_SDM_TINY,
    SD2,
    BK_SDM_V2_BASE,
    BK_SDM_V2_SMALL,
    BK_SDM_V2_TINY,
    SDXL,
    SSD_1B,
    VEGA,
    KOALA_700M,
    KOALA_1B,
)
"""Every known architecture, the parent of each family before its prunings."""

FAMILIES: tuple[str, ...] = tuple(dict.fromkeys(arch.family for arch in ARCHS))


def by_name(name: str) -> Arch:
    """The architecture of this name; UnknownFormat with the nearest name where there is none."""
    for arch in ARCHS:
        if arch.name == name:
            return arch
    names = [arch.name for arch in ARCHS]
    raise UnknownFormat(f"no architecture is called '{name}'; known are {', '.join(names)}.{nearest(name, names)}")


def family_parent(family: str) -> Arch:
    """The unpruned architecture of a family."""
    return next(arch for arch in ARCHS if arch.family == family)


def detect(unet: UNetStructure, text: tuple[tuple[Component, TextStructure], ...] = ()) -> Arch:
    """The architecture with these UNet blocks, holding the text encoders that the file has.

    A UNet that no architecture has is a pruning of its family's parent and is called ``<family>-custom``. UnknownFormat for
    the two relatives that adapters are not made for; its message continues the sentence "FILE …".
    """
    if replace(unet, strided=False) == SDXL_REFINER:
        raise UnknownFormat("is the SDXL refiner; adapters are made for the SDXL base, give that")
    if unet.added_embedding and replace(unet, added_embedding=False, strided=False) == SD2.unet:
        raise UnknownFormat("is SD2 unCLIP; adapters are made for SD2 itself, give that")
    for arch in ARCHS:
        if arch.unet is not None and replace(arch.unet, strided=unet.strided) == unet:
            return arch.with_parts(unet, text)
    parent = family_parent(_family(unet))
    title = f"{parent.title}, pruned to {unet.transformer_blocks} transformer blocks"
    return replace(parent, name=f"{parent.family}-custom", title=title, unet=unet, text=text)


def _family(unet: UNetStructure) -> str:
    if unet.added_embedding:
        return "sdxl"
    return "sd2" if unet.linear_projection else "sd1"
