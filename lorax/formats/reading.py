"""Reading an adapter: which dialect, which architecture, which layer each tensor belongs to. Dialects are handed in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from lorax.adapter import Adapter, AdapterModule, BaseHint, Offset
from lorax.archs import ARCHS, FAMILIES, family_parent
from lorax.errors import BaseMismatch, MalformedAdapter, UnknownFormat, nearest, one_line
from lorax.formats.foreign import describe_file, describe_key, foreign_family
from lorax.formats.leaves import DOWN, KNOWN, SCALES, build_module, describe_leaf
from lorax.layers import LayerId
from lorax.linalg import all_finite
from lorax.safefile import TensorFile
from lorax.structure import Arch
from lorax.workers import single_threaded

HINTS = 8
"""Of how many unknown names the nearest known one is looked for; that takes a moment each."""
Leaf = tuple[str, str]
"""(leaf name in kohya's and LyCORIS' terms, tensor name in the file)"""


class Dialect(Protocol):
    """How one family of adapter files names its tensors: a module of this package."""

    NAME: str

    def split(self, key: str, /) -> tuple[str, str] | None:
        """(module name, leaf) of a tensor name, or None where the name is not of this dialect."""
        ...

    def names(self, arch: Arch, /) -> Mapping[str, LayerId]:
        """Every accepted module name and the layer that it means."""
        ...

    def scales(self, metadata: Mapping[str, str], modules: Mapping[str, int], /) -> Mapping[str, float]:
        """alpha / r by module where the metadata gives it; `modules` holds their ranks."""
        ...

    def spelling(self, modules: Iterable[str], arch: Arch, /) -> str:
        """Name of the variant, for people."""
        ...


@dataclass(frozen=True)
class Listing:
    """The tensor names of a file, sorted by module."""

    modules: Mapping[str, tuple[Leaf, ...]]
    strays: tuple[tuple[str, str], ...] = field(default=())
    """Tensor names of no module, each with its reason."""


def read_file(file: TensorFile, dialects: Sequence[Dialect], arch: Arch | None, likely: Arch | None = None) -> Adapter:
    """The adapter in an opened file. Errors name the file and, where there is one, the module."""
    name = Path(file.path).name
    dialect, listing = _list(name, file, dialects)
    arch = _arch(name, dialect, listing, file, arch, likely)
    try:
        with single_threaded():
            modules, offsets, unmatched = _place(dialect, listing, file, arch)
    except MalformedAdapter as e:
        raise MalformedAdapter(one_line(f"'{name}' is damaged: {e}")) from None
    return Adapter(
        name=Path(file.path).stem,
        path=Path(file.path),
        format=dialect.spelling(listing.modules, arch),
        arch=arch,
        modules=modules,
        offsets=offsets,
        unmatched=tuple(sorted((*listing.strays, *unmatched))),
        metadata=dict(file.metadata),
        base=base_hint(file.metadata),
    )


def base_hint(metadata: Mapping[str, str]) -> BaseHint:
    """What the metadata says about the base, ours before the trainer's."""

    def said(*keys: str) -> str | None:
        return next((metadata[k] for k in keys if metadata.get(k) not in (None, "", "None")), None)

    return BaseHint(
        name=said("lorax.base_name", "ss_sd_model_name"),
        sha256=said("lorax.base_sha256", "ss_new_sd_model_hash"),
        autov1=said("lorax.base_autov1", "ss_sd_model_hash"),
        digest=said("lorax.base_digest"),
    )


def _list(name: str, file: TensorFile, dialects: Sequence[Dialect]) -> tuple[Dialect, Listing]:
    if not file.tensors:
        raise MalformedAdapter(one_line(f"'{name}' holds no tensors: it is an empty adapter."))
    found = [(sum((parts := d.split(key)) is not None and parts[1] not in SCALES for key in file.tensors), d) for d in dialects]
    most, dialect = max(found, key=lambda pair: pair[0])
    if most == 0:
        raise UnknownFormat(one_line(f"'{name}' is not an adapter that we know: {describe_file(file.tensors)}."))
    modules: dict[str, list[Leaf]] = {}
    strays: list[tuple[str, str]] = []
    for key in sorted(file.tensors):
        if parts := dialect.split(key):
            modules.setdefault(parts[0], []).append((parts[1], key))
        else:
            strays.append((key, describe_key(key, dialect.NAME)))
    return dialect, Listing({m: tuple(leaves) for m, leaves in modules.items()}, tuple(strays))


def _arch(name: str, dialect: Dialect, listing: Listing, file: TensorFile, given: Arch | None, likely: Arch | None) -> Arch:
    """The architecture whose names place the file: the given one, else that which places most modules.

    Of equals the parent of a family comes first: its prunings have the same names for other blocks' descendants.
    """

    def places(arch: Arch) -> int:
        return sum(m in dialect.names(arch) for m in listing.modules)

    given = given and _completed(given)
    if given is not None and 2 * places(given) >= len(listing.modules):
        return given
    candidates = (*map(family_parent, FAMILIES), *([_completed(likely)] if likely else ()), *ARCHS)
    placed = {arch: places(arch) for arch in candidates}
    best = max(placed, key=lambda arch: placed[arch])
    enough = 2 * placed[best] >= len(listing.modules)
    if enough and given is not None:
        raise BaseMismatch(
            one_line(
                f"'{name}' is an adapter for {best.title}: only {places(given)} of its {len(listing.modules)} modules exist in"
                f" {given.title}. Give the base that it was trained on."
            )
        )
    if not enough:
        first = next(m for m in listing.modules if m not in dialect.names(best))
        known = foreign_family(listing.modules) or f"'{first}' is no layer of them.{nearest(first, dialect.names(best))}"
        raise UnknownFormat(
            one_line(f"'{name}': {placed[best]} of {len(listing.modules)} modules are layers of SD1, SD2 or SDXL models; {known}")
        )
    tied = {arch.family: arch for arch in reversed(placed) if placed[arch] == placed[best]}
    if not {"sd1", "sd2"} <= tied.keys():
        return best
    return tied["sd2" if _is_second_version(dialect.names(tied["sd1"]), listing, file) else "sd1"]


def _completed(arch: Arch) -> Arch:
    """`arch` with the parent's networks in place of those that its file lacks: an adapter for them is none the worse for that."""
    parent, text = family_parent(arch.family), dict(arch.text)
    return arch.with_parts(arch.unet or parent.unet, tuple((c, text.get(c, structure)) for c, structure in parent.text))


def _is_second_version(names: Mapping[str, LayerId], listing: Listing, file: TensorFile) -> bool:
    """SD2 or SD1, whose layers have the same names: the metadata, else proj_in (a convolution in SD1), else the context's width."""
    said = f"{file.metadata.get('ss_base_model_version', '')} {file.metadata.get('modelspec.architecture', '')}".lower()
    if file.metadata.get("ss_v2") == "True" or "sd_v2" in said or "diffusion-v2" in said:
        return True
    if "sd_v1" in said or "diffusion-v1" in said:
        return False
    for module, leaves in listing.modules.items():
        key = dict(leaves).get(DOWN)
        path = names[module].path if module in names else ""
        if key and path.endswith("proj_in"):
            return len(file.tensors[key].shape) == 2
        if key and path.endswith(("attn2.to_k", "attn2.to_v")) and file.tensors[key].shape[-1:] == (1024,):
            return True
    return False


def _place(
    dialect: Dialect, listing: Listing, file: TensorFile, arch: Arch
) -> tuple[dict[LayerId, AdapterModule], dict[LayerId, Offset], list[tuple[str, str]]]:
    names = dialect.names(arch)
    modules: dict[LayerId, AdapterModule] = {}
    offsets: dict[LayerId, Offset] = {}
    unmatched: list[tuple[str, str]] = []
    spelled: dict[LayerId, str] = {}
    hints = HINTS
    scales = dialect.scales(file.metadata, _ranks(listing, file))
    for module, leaves in listing.modules.items():
        layer = names.get(module)
        if layer is None:
            hint = foreign_family([module]) or (nearest(module, names) if hints > 0 else "")
            hints -= 1
            unmatched += [(key, one_line(f"no layer of {arch.title}. {hint}")) for _, key in leaves]
            continue
        if layer in spelled:
            raise MalformedAdapter(f"'{module}' and '{spelled[layer]}' are the same layer, {layer}.")
        spelled[layer] = module
        strange = [describe_leaf(leaf) for leaf, _ in leaves if leaf not in KNOWN]
        known = [pair for pair in leaves if pair[0] in KNOWN]
        if strange and all(leaf in SCALES for leaf, _ in known):
            known = []
        unmatched += [(pair[1], describe_leaf(pair[0]) if pair[0] not in KNOWN else strange[0]) for pair in leaves if pair not in known]
        built, offset = _build(module, known, file, scales) if known else (None, None)
        if built is not None:
            modules[layer] = built
        if offset is not None:
            offsets[layer] = offset
    placed = len(modules.keys() | offsets.keys())
    if 2 * placed < len(listing.modules):
        first, reason = unmatched[0]
        raise MalformedAdapter(f"only {placed} of {len(listing.modules)} modules can be used; '{first}': {reason}")
    return modules, offsets, unmatched


def _ranks(listing: Listing, file: TensorFile) -> dict[str, int]:
    downs = {module: dict(leaves).get(DOWN) for module, leaves in listing.modules.items()}
    return {module: file.tensors[key].shape[0] for module, key in downs.items() if key and file.tensors[key].shape}


def _build(
    module: str, leaves: Sequence[Leaf], file: TensorFile, scales: Mapping[str, float]
) -> tuple[AdapterModule | None, Offset | None]:
    tensors: dict[str, Tensor] = {}
    for leaf, key in leaves:
        if leaf in tensors:
            raise MalformedAdapter(f"'{module}' has {leaf} twice, the second time as '{key}'.")
        tensors[leaf] = _finite(key, file.read(key))
    if module in scales and "alpha" not in tensors:
        tensors.setdefault("scale", torch.tensor(scales[module]))
    try:
        return build_module(tensors)
    except MalformedAdapter as e:
        raise MalformedAdapter(f"'{module}': {e}") from None


def _finite(key: str, tensor: Tensor) -> Tensor:
    wide = tensor.float() if tensor.is_floating_point() and tensor.itemsize == 1 else tensor
    if not all_finite(wide):
        raise MalformedAdapter(f"'{key}' holds NaN or infinity.")
    return wide
