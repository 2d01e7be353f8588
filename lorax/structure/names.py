"""What adapter files call the layers of an architecture. Names are made forward from the layers; no path is parsed out of underscores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType

from lorax.errors import UnknownFormat
from lorax.layers import Component, LayerId, LayerSpec
from lorax.structure.arch import Arch

_PEFT_PREFIX = {Component.UNET: "unet", Component.TE1: "text_encoder", Component.TE2: "text_encoder_2"}


def kohya_name(arch: Arch, layer: LayerId) -> str:
    """The name that kohya-style files of this architecture give the layer: SGM paths for the SDXL family, diffusers' for SD1 and SD2.

    KeyError-free: UnknownFormat where the architecture has no such layer.
    """
    return _spelled(kohya_spellings(arch), layer, arch)


def peft_name(arch: Arch, layer: LayerId) -> str:
    """``unet.…``, ``text_encoder.text_model.…`` or ``text_encoder_2.…``: the layer's name in diffusers and PEFT files."""
    return _spelled(_peft_spellings(arch), layer, arch)


@lru_cache(maxsize=32)
def kohya_names(arch: Arch) -> Mapping[str, LayerId]:
    """Every kohya-style module name that is accepted for this architecture, prefix included, and the layer that it means.

    Both spellings of UNet paths are accepted for every family: SD1 files of some trainers have LDM paths, OneTrainer's older
    SDXL files diffusers paths. ``lycoris_`` is the prefix of LyCORIS' generic wrapper.
    """
    return MappingProxyType({name: layer for layer, names in kohya_spellings(arch).items() for name in names})


@lru_cache(maxsize=32)
def kohya_spellings(arch: Arch) -> Mapping[LayerId, tuple[str, ...]]:
    """All kohya-style names of each layer, the one to write first."""
    return MappingProxyType({spec.id: tuple(dict.fromkeys(_kohya(arch, spec))) for spec in arch.layers()})


@lru_cache(maxsize=32)
def peft_names(arch: Arch) -> Mapping[str, LayerId]:
    """Every diffusers/PEFT module name that is accepted for this architecture, and the layer that it means.

    transformers 5 dropped ``text_model.`` from the paths of its CLIPTextModel, so both spellings occur.
    """
    return MappingProxyType({name: layer for layer, names in _peft_spellings(arch).items() for name in names})


@lru_cache(maxsize=32)
def _peft_spellings(arch: Arch) -> Mapping[LayerId, tuple[str, ...]]:
    spellings: dict[LayerId, tuple[str, ...]] = {}
    for layer in (spec.id for spec in arch.layers()):
        paths = dict.fromkeys((layer.path, layer.path.removeprefix("text_model.")))
        spellings[layer] = tuple(f"{_PEFT_PREFIX[layer.component]}.{path}" for path in paths)
    return MappingProxyType(spellings)


def _kohya(arch: Arch, spec: LayerSpec) -> Iterator[str]:
    diffusers = spec.id.path.replace(".", "_")
    if spec.id.component == Component.UNET:
        original = spec.single_file.module.replace(".", "_")
        paths = (original, diffusers) if arch.kohya_unet == "single_file" else (diffusers, original)
        yield from (f"lora_unet_{path}" for path in paths)
        yield f"lycoris_{diffusers}"
    elif Component.TE2 in arch.components:
        yield f"lora_{spec.id.component}_{diffusers}"
    else:
        yield f"lora_te_{diffusers}"
        yield f"lora_{spec.id.component}_{diffusers}"


def _spelled(spellings: Mapping[LayerId, tuple[str, ...]], layer: LayerId, arch: Arch) -> str:
    if layer not in spellings:
        raise UnknownFormat(f"{arch.title} has no layer {layer}")
    return spellings[layer][0]
