"""A base model as diffusers has it: the networks that a training step needs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor

from lorax.checkpoint import Checkpoint
from lorax.errors import LoraxError, one_line
from lorax.layers import Component
from lorax.structure import Arch
from lorax.train.data import Picture, read_pixels
from lorax.train.packages import load_package
from lorax.train.targets import live_arch, live_layers
from lorax.train.unet import build_unet, is_pruned

Moments = tuple[Tensor, Tensor]
"""Mean and standard deviation of a picture's latents, [4, h, w] each"""


@dataclass(frozen=True, eq=False)
class Encoded:
    """A caption as the UNet reads it."""

    states: Tensor
    """[77, width]"""
    pooled: Tensor | None
    """[width], SDXL only"""


@dataclass(frozen=True, eq=False)
class Parts:
    """The pipeline and what was read off it."""

    pipe: Any
    arch: Arch
    velocity: bool
    """The model predicts v, not the noise."""

    @property
    def xl(self) -> bool:
        return self.arch.family == "sdxl"


def load_parts(base: Checkpoint, config: Path | None, dtype: torch.dtype) -> Parts:
    """Load the base for training; the UNet in `dtype`, all frozen.

    LoraxError where diffusers cannot build it, with its own words and what to do.
    """
    diffusers = load_package("diffusers")
    kind = diffusers.StableDiffusionXLPipeline if base.arch.family == "sdxl" else diffusers.StableDiffusionPipeline
    if len(base.paths) != 1:
        raise LoraxError("training needs one file or one diffusers folder, with text encoders and VAE; separate files are not taken.")
    path = base.paths[0]
    extra: dict[str, Any] = {} if base.arch.family == "sdxl" else {"safety_checker": None, "requires_safety_checker": False}
    if not path.is_dir() and is_pruned(base, config):
        extra["unet"] = build_unet(base, dtype)
    try:
        if path.is_dir():
            pipe = kind.from_pretrained(str(path), local_files_only=True, variant=_variant(path), **extra)
        else:
            source = {"config": str(config), "local_files_only": True} if config else {}
            pipe = kind.from_single_file(str(path), **source, **extra)
    except Exception as error:
        reason = shorten(one_line(str(error)), 300, placeholder=" …").rstrip(". ")
        raise LoraxError(
            f"diffusers cannot load '{path.name}': {reason}. It has to be whole (UNet, text encoders, VAE); a single file also needs its"
            " configuration: give a diffusers folder of the same architecture with --config, or be online once."
        ) from None
    for network in networks(pipe):
        _check_complete(path, network)
        network.requires_grad_(False).eval()
        wanted = dtype if network is pipe.unet else torch.float32
        if next(network.parameters()).dtype != wanted:
            network.to(dtype=wanted)
        _take_in(network)
    check_loaded(base, pipe, dtype)
    pipe.set_progress_bar_config(disable=True)
    arch = live_arch(pipe.unet, [])
    prediction = base.prediction_type or pipe.scheduler.config.get("prediction_type", "epsilon")
    return Parts(pipe, arch, prediction.startswith("v"))


def check_loaded(base: Checkpoint, pipe: Any, dtype: torch.dtype) -> None:
    """Whether each network holds the file's weights, by its first layer. A library that does not know a file's names (transformers 4
    a text encoder that 5 has saved) only warns, and goes on with random ones. Raises LoraxError."""
    encoders = networks(pipe)[2:]
    live = live_layers(base.arch, pipe.unet, encoders)
    for component in base.components:
        layer = next((i for i in base.layers if i.component == component and isinstance(live.get(i), torch.nn.Linear)), None)
        if layer is None:
            continue
        stored, loaded = base.read(base.layers[layer]), live[layer].get_parameter("weight").detach().float().cpu()
        coarse = torch.finfo(dtype if component == Component.UNET else torch.float32).eps
        if stored.shape != loaded.shape or not torch.allclose(stored, loaded, rtol=2 * coarse, atol=1e-6):
            raise LoraxError(
                f"diffusers did not load the {component} of '{base.name}' from its file ({layer} has other weights): the installed"
                " transformers or diffusers does not know how it was saved; update them, or give a single file."
            )


def _check_complete(path: Path, network: Any) -> None:
    """diffusers leaves weights that a single file has not without a value, and says nothing."""
    empty = [name for name, parameter in network.named_parameters() if parameter.is_meta]
    if empty:
        raise LoraxError(
            f"'{path.name}' has no '{empty[0]}' for the {type(network).__name__} that its configuration describes ({len(empty)} weights are"
            " missing): give the diffusers folder of the same architecture with --config."
        )


def _take_in(network: Any) -> None:
    """Weights into torch's own memory: a file's tensors may begin anywhere, and where they begin decides how MKL rounds. Several
    processes, which diffusers loads otherwise, then give the bits of one."""
    for parameter in network.parameters():
        if parameter.data_ptr() % 64:
            parameter.data = parameter.data.clone()


def _variant(folder: Path) -> str | None:
    """``fp16`` where a folder has only files of that name."""
    files = [path.name for path in (folder / "unet").glob("*") if path.suffix in (".safetensors", ".bin")]
    return "fp16" if files and all(".fp16" in name for name in files) else None


def pixels_of_latent(base: Path, config: Path | None) -> int:
    """Along each side: 8 in Stable Diffusion; what a folder's VAE says is asked before anything is loaded."""
    try:
        said = json.loads(((config or base) / "vae" / "config.json").read_text(encoding="utf-8"))
        return 2 ** (len(said["block_out_channels"]) - 1)
    except (OSError, ValueError, KeyError, TypeError):
        return 8


def networks(pipe: Any) -> list[Any]:
    """All networks of a pipeline."""
    return [n for n in (pipe.unet, pipe.vae, pipe.text_encoder, getattr(pipe, "text_encoder_2", None)) if n is not None]


def encode_captions(parts: Parts, captions: set[str], device: torch.device) -> dict[str, Encoded]:
    """Each caption once; the text encoders stay on the CPU afterwards, they are not trained."""
    encoders = networks(parts.pipe)[2:]
    for encoder in encoders:
        encoder.to(device)
    found: dict[str, Encoded] = {}
    with torch.no_grad():
        for caption in sorted(captions):
            made = parts.pipe.encode_prompt(caption, device=device, num_images_per_prompt=1, do_classifier_free_guidance=False)
            found[caption] = Encoded(made[0][0].float().cpu(), made[2][0].float().cpu() if parts.xl else None)
    for encoder in encoders:
        encoder.to("cpu")
    return found


def encode_pictures(parts: Parts, pictures: list[Picture], device: torch.device, tick: Any) -> list[Moments]:
    """The VAE's answer to each picture, once, in fp32 (SDXL's overflows in fp16)."""
    vae = parts.pipe.vae.to(device)
    found: list[Moments] = []
    with torch.no_grad():
        for picture in pictures:
            made = vae.encode(read_pixels(picture)[None].to(device)).latent_dist
            if not bool(torch.isfinite(made.mean).all()):
                raise LoraxError(f"the VAE of the base gives no finite numbers for '{picture.path.name}': use another copy of the base.")
            found.append((made.mean[0].cpu(), made.std[0].cpu()))
            tick()
    vae.to("cpu")
    return found
