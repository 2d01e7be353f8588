"""Open a base model and find every layer of its architecture in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from lorax.archs import family_parent
from lorax.checkpoint.about import layout_name, notes_on, notes_on_files, predicting, prediction_type
from lorax.checkpoint.decode import FLOATS
from lorax.checkpoint.model import About, Checkpoint
from lorax.checkpoint.parts import BESIDE, Found, Part, find_parts, unplaced
from lorax.checkpoint.recognise import recognise
from lorax.checkpoint.shapes import check_shapes
from lorax.checkpoint.sources import Source, open_sources, split_spec
from lorax.errors import MalformedCheckpoint, UnknownFormat, one_line
from lorax.layers import Component, Layer, LayerId, LayerSpec


def open_checkpoint(spec: str | Path) -> Checkpoint:
    """Open a base model: a single file, a diffusers folder, a UNet file, or files joined by ``+`` (``unet+te1+te2``).

    Only headers are read. UnknownFormat where it is no base that we know, and says what it is if that is obvious;
    MalformedCheckpoint where it is one but its tensors disagree; FileError and its kin for the files themselves.
    """
    paths = tuple(split_spec(spec))
    with ExitStack() as stack:
        sources = [source for path in paths for source in open_sources(path, stack)]
        try:
            checkpoint = _assemble(paths, sources)
        except (MalformedCheckpoint, UnknownFormat) as e:
            raise type(e)(one_line(f"'{'+'.join(map(str, paths))}' {e}")) from None
        return checkpoint.owns(stack.pop_all())


def _assemble(paths: tuple[Path, ...], sources: Sequence[Source]) -> Checkpoint:
    found = [find_parts(source.file, source.component) for source in sources]
    parts = [part for one in found for part in one.parts]
    arch, placed = recognise(parts, [name for source in sources for name in source.file.tensors])
    layers, missing = _find_layers(arch.layers(), placed)
    check_shapes(layers.values())
    _check_stored(layers.values(), placed)
    counted, unused = _rest(found, placed.values(), layers.values())
    files = {component: part.file for component, part in placed.items()}
    prediction = prediction_type(paths[0], arch, layers, files)
    notes = (*notes_on(arch, layers, missing, family_parent(arch.family).components), *notes_on_files(files.values()))
    about = About(
        name="+".join(path.stem if path.is_file() else path.resolve().name for path in paths),
        paths=paths,
        layout=layout_name(paths, arch.components),
        prediction_type=prediction,
        notes=notes,
        counted=counted,
        unused=tuple(unused),
    )
    return Checkpoint(predicting(arch, prediction), about, layers, files)


def _find_layers(specs: Iterable[LayerSpec], placed: Mapping[Component, Part]) -> tuple[dict[LayerId, Layer], list[LayerSpec]]:
    """The layers that are there, and the text encoder's that are not. MalformedCheckpoint where the UNet lacks one."""
    layers: dict[LayerId, Layer] = {}
    missing: list[LayerSpec] = []
    for spec in specs:
        layer = _find_layer(spec, placed[spec.id.component])
        if layer is not None:
            layers[spec.id] = layer
        else:
            missing.append(spec)
    cut = [spec for spec in missing if spec.id.component == Component.UNET]
    if cut:
        raise MalformedCheckpoint(f"lacks {len(cut)} weights of its UNet, the first is {cut[0].id}; it is incomplete, get another copy")
    return layers, missing


def _find_layer(spec: LayerSpec, part: Part) -> Layer | None:
    stored = spec.single_file if part.layout == "single_file" else spec.diffusers
    tensor = part.names.get(stored.module + stored.suffix)
    if tensor is None:
        return None
    bias = part.names.get(stored.module + stored.suffix.replace("weight", "bias")) if stored.suffix else None
    shape = part.file.tensors[tensor].shape
    if stored.parts == 1:
        return Layer(spec, shape, tensor, None, bias)
    if not shape or shape[0] % stored.parts:
        raise MalformedCheckpoint(f"has '{tensor}' of shape {list(shape)}; its rows should be {stored.parts} equal parts")
    size = shape[0] // stored.parts
    return Layer(spec, (size, *shape[1:]), tensor, (stored.part * size, (stored.part + 1) * size), bias)


def _check_stored(layers: Iterable[Layer], placed: Mapping[Component, Part]) -> None:
    """Weights are floats, and a bias has one value for each row of its weight."""
    for layer in layers:
        infos = placed[layer.id.component].file.tensors
        if (dtype := infos[layer.tensor].dtype) not in FLOATS:
            raise MalformedCheckpoint(f"has '{layer.tensor}' as {dtype}: it is quantised in a way that is not read; give an fp16 copy")
        if layer.bias is None:
            continue
        rows = infos[layer.tensor].shape[0]
        if infos[layer.bias].shape != (rows,):
            raise MalformedCheckpoint(f"has '{layer.bias}' {list(infos[layer.bias].shape)} beside a weight with {rows} rows")


def _rest(found: Sequence[Found], parts: Iterable[Part], layers: Iterable[Layer]) -> tuple[dict[str, int], list[str]]:
    """What is in the files beside the layers: known tensors counted by what they are, and the names of unknown ones."""
    used = {name for layer in layers for name in (layer.tensor, layer.bias) if name is not None}
    counted: dict[str, int] = {}
    unused: list[str] = []
    for one in found:
        unused.extend(one.unknown)
        for label, number in one.counted.items():
            counted[label] = counted.get(label, 0) + number
    for part in parts:
        unknown, beside = unplaced(part, used)
        unused.extend(unknown)
        if beside:
            counted[BESIDE] = counted.get(BESIDE, 0) + beside
    return counted, unused
