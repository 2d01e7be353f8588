"""What a base's files tell beside its layers: the kind of prediction, and what a user should know."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lorax.checkpoint.decode import read_float
from lorax.checkpoint.sources import scheduler_prediction
from lorax.layers import Component, Layer, LayerId, LayerSpec
from lorax.safefile import TensorFile
from lorax.safefile.gguf import TYPES
from lorax.structure import Arch

_CONV_IN = LayerId(Component.UNET, "conv_in")
_LAST_NORM = LayerId(Component.UNET, "up_blocks.3.attentions.2.transformer_blocks.0.norm1")
_V_SPREAD = 0.09
"""ComfyUI's test (comfy/supported_models.py, SD20): the bias of the last norm1 spreads more than this in SD2 768-v models."""
_WORDS = {"v_prediction": "v", "v": "v", "epsilon": "epsilon", "edm": "edm"}


def prediction_type(path: Path, arch: Arch, layers: Mapping[LayerId, Layer], files: Mapping[Component, TensorFile]) -> str | None:
    """``epsilon``, ``v`` or ``edm``; None where nothing says it, which for most files means epsilon.

    By the scheduler of a diffusers folder, marker tensors (``v_pred``, ``edm_mean``), metadata, and for SD2 by its weights.
    """
    file = files[Component.UNET]
    if "edm_mean" in file.tensors or "edm_vpred.sigma_max" in file.tensors:
        return "edm"
    if "v_pred" in file.tensors:
        return "v"
    said = scheduler_prediction(path) or file.metadata.get("modelspec.prediction_type", "")
    if said in _WORDS:
        return _WORDS[said]
    norm = layers.get(_LAST_NORM)
    if arch.name != "sd2" or norm is None or norm.bias is None or layers[_CONV_IN].shape[1] != 4:
        return None
    spread = float(read_float(file, norm.bias, None).std(correction=0))
    return "v" if spread > _V_SPREAD else "epsilon"


def predicting(arch: Arch, prediction: str | None) -> Arch:
    """`arch` with the names that sd-scripts and modelspec give to models that predict v (``sd_v2_v``, ``…-768-v``)."""
    if prediction != "v" or arch.family == "sdxl":
        return arch
    architecture = arch.modelspec_architecture.replace("-512", "-768-v")
    return replace(arch, base_model_version=f"{arch.base_model_version}_v", modelspec_architecture=architecture)


def layout_name(paths: Sequence[Path], components: Sequence[Component]) -> str:
    """The layout in words."""
    if len(paths) > 1:
        return "separate files"
    what = "folder" if paths[0].is_dir() else "file"
    if tuple(components) == (Component.UNET,):
        return f"UNet {what}"
    return "diffusers folder" if what == "folder" else "single file"


def notes_on(arch: Arch, layers: Mapping[LayerId, Layer], missing: Sequence[LayerSpec], expected: Sequence[Component]) -> Iterator[str]:
    """One line for each thing about this base that bears on adapters."""
    channels = layers[_CONV_IN].shape[1]
    if channels == 9:
        yield "inpainting model: conv_in takes 9 channels"
    elif channels == 8:
        yield "editing model (pix2pix): conv_in takes 8 channels"
    elif channels != 4:
        yield f"conv_in takes {channels} channels instead of 4"
    if arch.name.endswith("-custom"):
        yield f"{arch.title}: no named architecture has these blocks"
    for component in expected:
        if component not in arch.components:
            yield f"{component} is not in the file"
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        yield f"the text encoder lacks {missing[0].id}{more}"


def notes_on_files(files: Iterable[TensorFile]) -> Iterator[str]:
    """One line for each file whose weights are not the ones that the model was made with."""
    for file in dict.fromkeys(files):
        types = file.metadata.get(TYPES, "")
        if "Q" in types:
            yield f"quantised ({types}): weights are read as the numbers that they stand for"
