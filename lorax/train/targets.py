"""Which layers of a live pipeline are trained, and what they are called in files.

Works on any UNet and text encoders whose modules have diffusers', transformers' or the original (SGM) names, as those of
diffusers and of sd-scripts do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch

from torch import nn

from lorax.archs import detect, family_parent, kohya_name
from lorax.errors import LoraxError, UnknownFormat, nearest
from lorax.layers import Component, LayerId, LayerKind, LayerSpec
from lorax.structure import Arch, TextStructure, parse_text, parse_unet
from lorax.train.module import adaptable

TARGETS = ("attn", "ff", "linear", "conv")
"""What can be joined by ``+``: the attention's projections (the paper's choice), the feed-forward halves, all linear layers, all
convolutions."""


def live_arch(unet: nn.Module, text_encoders: Sequence[nn.Module]) -> Arch:
    """The architecture of networks in memory, by their parameters' names. UnknownFormat where it is none that we know."""
    parsed = parse_unet(_shapes(unet))
    if parsed is None:
        raise UnknownFormat(
            f"LoRA-X is trained on the UNet of Stable Diffusion 1, 2 or XL; this base has a {type(unet).__name__} of another layout:"
            " give a base of these families."
        )
    family = detect(parsed[0]).family
    declared = dict(family_parent(family).text)
    text: list[tuple[Component, TextStructure]] = []
    for component, encoder in zip((Component.TE1, Component.TE2), text_encoders, strict=False):
        found = parse_text(_full_path(name) for name in _shapes(encoder))
        if found is None:
            raise UnknownFormat(
                f"LoRA-X is trained on CLIP text encoders; this base has a {type(encoder).__name__} as {component}: give a base of"
                " Stable Diffusion 1, 2 or XL."
            )
        text.append((component, replace(found, kind=declared[component].kind) if component in declared else found))
    return detect(parsed[0], tuple(text))


def live_layers(arch: Arch, unet: nn.Module | None, text_encoders: Sequence[nn.Module]) -> dict[LayerId, nn.Module]:
    """The live module of each layer of `arch`: a module is found under its diffusers path or its original one."""
    modules = {Component.UNET: dict(unet.named_modules()) if unet is not None else {}}
    for component, encoder in zip((Component.TE1, Component.TE2), text_encoders, strict=False):
        modules[component] = {_full_path(name): module for name, module in encoder.named_modules()}
    found: dict[LayerId, nn.Module] = {}
    for spec in arch.layers():
        here = modules.get(spec.id.component, {})
        module = here.get(spec.id.path) or here.get(spec.single_file.module)
        if module is not None:
            found[spec.id] = module
    return found


def parse_target(target: str) -> frozenset[str]:
    """``attn+ff`` as a set. LoraxError with the nearest word where one is unknown."""
    words = frozenset(word.strip() for word in target.split("+") if word.strip())
    for word in words:
        if word not in TARGETS:
            raise LoraxError(f"unknown target '{word}': expected {', '.join(TARGETS)}, joined by '+'.{nearest(word, TARGETS)}")
    if not words:
        raise LoraxError(f"no target was given: expected {', '.join(TARGETS)}, joined by '+'.")
    return words


def chosen_layers(arch: Arch, live: Mapping[LayerId, nn.Module], target: str = "attn", exclude: Iterable[str] = ()) -> dict[str, nn.Module]:
    """Kohya name → live layer of what is trained. exclude: patterns of canonical names (``unet.down_blocks.0.*``, ``*.to_k``).

    LoraxError where a pattern excludes nothing, or everything.
    """
    words, specs = parse_target(target), arch.specs()
    wanted = {i: m for i, m in live.items() if is_wanted(specs[i], words) and adaptable(m)}
    for pattern in exclude:
        left = {i: m for i, m in wanted.items() if not fnmatch(str(i), pattern)}
        if len(left) == len(wanted):
            raise LoraxError(f"'{pattern}' excludes no layer; names look like '{next(iter(wanted), 'unet.conv_in')}'.")
        wanted = left
    if not wanted:
        raise LoraxError(f"the target '{target}' leaves no layer to train.")
    return {kohya_name(arch, i): module for i, module in wanted.items()}


def is_wanted(spec: LayerSpec, words: frozenset[str]) -> bool:
    """Whether a layer is among the targets."""
    if spec.kind == LayerKind.CONV:
        return "conv" in words
    if spec.kind != LayerKind.LINEAR:
        return False
    attention = spec.role.startswith(("attn1.", "attn2.", "self_attn."))
    forward = spec.role.startswith(("ff.", "mlp."))
    return "linear" in words or (attention and "attn" in words) or (forward and "ff" in words)


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters as a file has them, whatever was put around the network."""
    return {name.removeprefix("module."): tuple(p.shape) for name, p in network.named_parameters()}


def _full_path(name: str) -> str:
    """transformers 5 dropped ``text_model.`` from CLIPTextModel's paths."""
    return (
        name
        if name.startswith("text_model.") or not name.startswith(("embeddings.", "encoder.", "final_layer_norm"))
        else f"text_model.{name}"
    )
