"""Which tensors of a checkpoint a bake changes, and by what; decided from headers, before any weight is read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from lorax.adapter import Adapter, AdapterModule
from lorax.checkpoint import Checkpoint
from lorax.checkpoint.decode import FLOATS, scale_name
from lorax.errors import BaseMismatch, FileError, LoraxError, UnknownFormat, WouldOverwrite, one_line
from lorax.layers import Layer, LayerId
from lorax.safefile import TensorFile
from lorax.safefile.gguf import TYPES


@dataclass(frozen=True)
class Absent:
    """Something of an adapter that the checkpoint has no place for."""

    layer: LayerId
    reason: str


@dataclass(frozen=True, eq=False)
class Edit:
    """One adapter's change of one layer."""

    layer: Layer
    change: AdapterModule | Tensor
    """A module, or the 1-D offset of a norm or a bias."""
    strength: float
    adapter: int
    """Position in the list of adapters."""

    @property
    def rows(self) -> slice:
        """The layer's rows of its tensor."""
        return slice(None) if self.layer.rows is None else slice(*self.layer.rows)


@dataclass(frozen=True, eq=False)
class BakePlan:
    """The edits by tensor; tensors not named are copied byte by byte."""

    file: TensorFile
    edits: Mapping[str, Sequence[Edit]]
    placed: tuple[int, ...]
    """By adapter: how many of its modules and offsets have a place."""
    absent: tuple[tuple[Absent, ...], ...]
    """By adapter: what has none."""
    notes: tuple[str, ...]


def plan_bake(checkpoint: Checkpoint, adapters: Sequence[tuple[Adapter, float]]) -> BakePlan:
    """Find the tensor of every module and offset.

    Raises BaseMismatch for an adapter of another family, or one of which most has no place; UnknownFormat for a checkpoint
    that is not one file, or whose weights are quantised with scales of their own.
    """
    if not adapters:
        raise LoraxError("There is no adapter to bake; give at least one.")
    file = single_file(checkpoint)
    edits: dict[str, list[Edit]] = {}
    placed: list[int] = []
    absent: list[tuple[Absent, ...]] = []
    for number, (adapter, strength) in enumerate(adapters):
        _check_adapter(checkpoint, adapter, strength)
        places = list(_places(checkpoint, adapter))
        found = [place for place in places if not isinstance(place, Absent)]
        missing = tuple(place for place in places if isinstance(place, Absent))
        _check_enough(checkpoint, adapter, len(found), missing)
        for layer, change, tensor in found:
            _check_stored(checkpoint, file, tensor)
            edits.setdefault(tensor, []).append(Edit(layer, change, strength, number))
        placed.append(len(found))
        absent.append(missing)
    return BakePlan(file, edits, tuple(placed), tuple(absent), tuple(_notes(checkpoint, file, edits)))


def single_file(checkpoint: Checkpoint) -> TensorFile:
    """The one file that holds the checkpoint."""
    file = checkpoint.file(checkpoint.components[0])
    if len(checkpoint.paths) != 1 or not checkpoint.paths[0].is_file() or file.path != checkpoint.paths[0]:
        raise UnknownFormat(one_line(f"'{checkpoint.name}' is no single file ({checkpoint.layout}); bake merges into single files."))
    return file


def _places(checkpoint: Checkpoint, adapter: Adapter) -> Iterator[tuple[Layer, AdapterModule | Tensor, str] | Absent]:
    """(layer, change, name of the tensor that it changes), or why there is none, for all of an adapter."""
    for name, module in adapter.modules.items():
        layer = checkpoint.layers.get(name)
        if layer is None:
            yield Absent(name, _no_layer(checkpoint, name))
        elif not module.fits(layer.shape):
            yield Absent(name, f"is for a weight of {list(module.shape)}, the checkpoint has {list(layer.shape)}")
        else:
            yield layer, module, layer.tensor
    for name, offset in adapter.offsets.items():
        layer = checkpoint.layers.get(name)
        for what, change in (("weight", offset.weight), ("bias", offset.bias)):
            if change is None:
                continue
            tensor = None if layer is None else layer.tensor if what == "weight" else layer.bias
            if layer is None:
                yield Absent(name, _no_layer(checkpoint, name))
            elif tensor is None:
                yield Absent(name, "adds to a bias, the checkpoint has none there")
            elif change.numel() != math.prod(layer.shape if what == "weight" else layer.shape[:1]):
                yield Absent(name, f"adds {change.numel()} numbers to a {what}, the checkpoint has {list(layer.shape)}")
            else:
                yield layer, change, tensor


def _no_layer(checkpoint: Checkpoint, name: LayerId) -> str:
    return "the checkpoint has no such layer" if name.component in checkpoint.components else f"the checkpoint has no {name.component}"


def _check_adapter(checkpoint: Checkpoint, adapter: Adapter, strength: float) -> None:
    if not math.isfinite(strength):
        raise LoraxError(one_line(f"The strength of '{adapter.name}' is {strength}; a number like 0.8 was expected."))
    if adapter.family != checkpoint.arch.family:
        raise BaseMismatch(one_line(f"'{adapter.name}' was made for {adapter.family}, '{checkpoint.name}' is {checkpoint.arch.family}."))


def _check_enough(checkpoint: Checkpoint, adapter: Adapter, count: int, missing: Sequence[Absent]) -> None:
    """A handful without a place is a report line; most of them is a refusal. A component that the file lacks does not count."""
    lost = [a for a in missing if a.layer.component in checkpoint.components]
    if count == 0 or len(lost) > count:
        example = f" ({missing[0].layer}: {missing[0].reason})" if missing else ""
        raise BaseMismatch(
            one_line(
                f"Only {count} of {count + len(missing)} modules of '{adapter.name}' have a place in '{checkpoint.name}'{example};"
                " transfer the adapter to this checkpoint first."
            )
        )


def _check_stored(checkpoint: Checkpoint, file: TensorFile, tensor: str) -> None:
    dtype = file.tensors[tensor].dtype
    scaled = dtype.startswith("F8") and scale_name(file, tensor) is not None
    if dtype not in FLOATS or scaled:
        raise UnknownFormat(
            one_line(
                f"'{checkpoint.name}' stores '{tensor}' as {dtype}{' with a scale' if scaled else ''}, which is not merged into:"
                " bake into the fp16 file and convert that."
            )
        )


def _notes(checkpoint: Checkpoint, file: TensorFile, edits: Mapping[str, Sequence[Edit]]) -> Iterator[str]:
    narrow = sorted({dtype for tensor in edits if (dtype := file.tensors[tensor].dtype).startswith("F8")})
    if narrow:
        yield f"the checkpoint is {', '.join(narrow)}: what the adapter changes is rounded to that; an fp16 checkpoint keeps more of it"
    types = file.metadata.get(TYPES, "")
    if "Q" in types:
        yield f"the checkpoint is GGUF ({types}): what is quantised there is written as F32; an fp16 checkpoint gives a smaller file"
    if file.ignored:
        yield f"{len(file.ignored)} entries of the pickle are no tensors and were left out: {', '.join(file.ignored[:5])}"
    if copies := checkpoint.about.counted.get("of the EMA copy"):
        yield f"{copies} tensors of the EMA copy stay as they are; programs that load it instead will not see the adapter"


def check_output(out: Path, checkpoint: Checkpoint, adapters: Sequence[tuple[Adapter, float]]) -> None:
    """WouldOverwrite where `out` is one of the inputs, by whatever name or link; FileError for a suffix that loaders misread."""
    if out.suffix.lower() != ".safetensors":
        raise FileError(one_line(f"'{out}' must end in .safetensors, which is what is written."))
    for path in (*checkpoint.paths, *(adapter.path for adapter, _ in adapters)):
        if path is not None and out.exists() and path.exists() and out.samefile(path):
            raise WouldOverwrite(one_line(f"'{out}' is the input '{path}'; write the result under another name."))
