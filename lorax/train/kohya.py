"""The network module for kohya's sd-scripts: ``--network_module=lorax.train.kohya``.

sd-scripts calls what is here by name (train_network.py); arguments come as it passes them, strings in ``--network_args``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lorax.adapter import BaseHint
from lorax.archs import kohya_names
from lorax.bases import default_bases
from lorax.errors import LoraxError
from lorax.formats import read_adapter
from lorax.layers import Component
from lorax.structure import Arch
from lorax.train.base_weights import FileWeights
from lorax.train.network import DEFAULT_K, Network, live_weight
from lorax.train.options import NetworkOptions, parse_options
from lorax.train.targets import chosen_layers, live_arch, live_layers

log = logging.getLogger(__name__)

Rates = float | int | Sequence[float] | None
"""sd-scripts' ``--text_encoder_lr``: one number, one for each text encoder, or none."""


def create_network(
    multiplier: float,
    network_dim: int | None,
    network_alpha: float | None,
    vae: Any,
    text_encoder: Any,
    unet: nn.Module,
    neuron_dropout: float | None = None,
    **kwargs: object,
) -> KohyaNetwork:
    """A network at k = `network_dim` (default 320, cut to each layer's rank). `network_alpha` has no meaning for σ and is ignored."""
    options = parse_options({"dropout": neuron_dropout, **{k: v for k, v in kwargs.items() if k != "dropout" or v is not None}})
    return _network(multiplier, network_dim or DEFAULT_K, text_encoder, unet, options)


def create_network_from_weights(
    multiplier: float,
    file: str | None,
    vae: Any,
    text_encoder: Any,
    unet: nn.Module,
    weights_sd: Mapping[str, Tensor] | None = None,
    for_inference: bool = False,
    **kwargs: object,
) -> tuple[KohyaNetwork, Mapping[str, Tensor]]:
    """A network of the file's own k, kind and layers; its values are taken by `load_weights` or `merge_to`."""
    if file is None:
        raise LoraxError("a LoRA-X network is made from its file: σ alone does not say which base it is for.")
    encoders = _encoders(text_encoder)
    adapter = read_adapter(file, live_arch(unet, encoders))
    if adapter.native is None:
        raise LoraxError(f"'{Path(file).name}' is an ordinary adapter; make a LoRA-X file of it by 'converter to-lorax'.")
    said = {"kind": "diagonal" if adapter.native.diagonal else "full", "target": "linear+conv", **kwargs}
    said.setdefault("self_contained", str(adapter.native.self_contained))
    network = _network(multiplier, adapter.native.k, text_encoder, unet, parse_options(said), keep=set(adapter.modules))
    network.file = Path(file)
    return network, weights_sd or {}


class KohyaNetwork(Network):
    """`Network` with the methods that sd-scripts calls."""

    def __init__(self, arch: Arch, layers: Mapping[str, nn.Module], k: int, options: NetworkOptions) -> None:
        super().__init__(layers, k, full=options.full, form=options.form, arch=arch, self_contained=options.self_contained)
        self.options = options
        self.file: Path | None = None
        """Of the network that was made from weights."""
        self._base_file: str | None = None

    # before training

    def prepare_network(self, args: Any) -> None:
        """sd-scripts' own arguments, before anything is computed."""
        if getattr(args, "save_model_as", "safetensors") not in (None, "safetensors"):
            raise LoraxError(f"--save_model_as={args.save_model_as}: LoRA-X files are safetensors.")
        if not getattr(args, "base_weights", None):
            self._base_file = getattr(args, "pretrained_model_name_or_path", None)

    def apply_to(self, text_encoder: Any, unet: Any, apply_text_encoder: bool = True, apply_unet: bool = True) -> None:
        """Put LoRA-X on the networks that are trained; the bases come from the cache where they were computed before."""
        self._keep(apply_text_encoder, apply_unet)
        log.info("LoRA-X: computing the bases of %d layers (k = %d); the next run finds them in the cache", len(self._layers), self.k)
        self._put_on_live()
        kinds = [sum(name.startswith(prefix) for name in self._layers) for prefix in ("lora_te", "lora_unet_")]
        log.info(
            "LoRA-X: %d layers of text encoders, %d of the UNet, %d numbers to train", *kinds, sum(p.numel() for p in self.parameters())
        )

    def _put_on_live(self) -> None:
        names = kohya_names(self.arch) if self.arch else {}
        with FileWeights(self._base_file) as file:
            self.put_on(default_bases(), lambda name, layer: file.weight(names[name], layer), self.options.device)

    def _keep(self, text: bool, unet: bool) -> None:
        self._layers = {n: m for n, m in self._layers.items() if (text if n.startswith("lora_te") else unet)}
        if not self._layers:
            raise LoraxError("nothing is left to train: the network has no layer in the networks that sd-scripts trains.")

    def load_weights(self, file: str) -> str:
        """``--network_weights``: refused where the file was trained on another base."""
        return str(self.load(file))

    def prepare_optimizer_params(
        self, text_encoder_lr: Rates = None, unet_lr: float | None = None, default_lr: float | None = None
    ) -> list[dict[str, Any]]:
        """Parameter groups with their learning rates."""
        return self.prepare_optimizer_params_with_multiple_te_lrs(text_encoder_lr, unet_lr, default_lr)[0]

    def prepare_optimizer_params_with_multiple_te_lrs(
        self, text_encoder_lr: Rates = None, unet_lr: float | None = None, default_lr: float | None = None
    ) -> tuple[list[dict[str, Any]], list[str]]:
        """The same, each text encoder with a rate of its own, and what the groups are called in the log."""
        self.requires_grad_(True)
        rates = {
            "textencoder": (("lora_te_", "lora_te1_"), _rate(text_encoder_lr, 0, default_lr)),
            "textencoder 2": (("lora_te2_",), _rate(text_encoder_lr, 1, default_lr)),
            "unet": (("lora_unet_",), default_lr if unet_lr is None else unet_lr),
        }
        groups: list[dict[str, Any]] = []
        described: list[str] = []
        for what, (prefixes, rate) in rates.items():
            found = [adapter.sigma for name, adapter in self.modules_by_name.items() if name.startswith(prefixes)]
            if found:
                groups.append({"params": found} if rate is None else {"params": found, "lr": rate})
                described.append(what)
        return groups, described

    # while training

    def enable_gradient_checkpointing(self) -> None:
        """Nothing of ours is kept between forward and backward but what autograd keeps."""

    def prepare_grad_etc(self, text_encoder: Any, unet: Any) -> None:
        """The models have their final precision and device now."""
        self.requires_grad_(True)

    def on_epoch_start(self, text_encoder: Any, unet: Any) -> None:
        self.train()

    def on_step_start(self, *_: Any) -> None:
        """Nothing to do."""

    def get_trainable_params(self) -> list[nn.Parameter]:
        return list(self.parameters())

    def apply_max_norm_regularization(self, max_norm_value: float, device: Any) -> tuple[int, float, float]:
        """``--scale_weight_norms``: (modules scaled, mean and largest norm of ΔW afterwards)."""
        norms = self.clamp_norms(float(max_norm_value))
        after = [min(norm, float(max_norm_value)) for norm in norms]
        return sum(norm > max_norm_value for norm in norms), sum(after) / len(after), max(after)

    # afterwards

    def save_weights(self, file: str, dtype: torch.dtype | None, metadata: Mapping[str, Any] | None) -> None:
        """A LoRA-X file with sd-scripts' metadata, which names the base, and ours."""
        said = {key: str(value) for key, value in (metadata or {}).items()}
        self.base = BaseHint(said.get("ss_sd_model_name"), said.get("ss_new_sd_model_hash"), said.get("ss_sd_model_hash"))
        self.save(Path(file).with_suffix(".safetensors"), said, dtype or torch.float32, overwrite=True)

    def is_mergeable(self) -> bool:
        return True

    def merge_to(self, text_encoder: Any, unet: Any, weights_sd: Any, dtype: torch.dtype | None, device: Any) -> None:
        """``--base_weights``: add the file's deltas to the models' weights."""
        if self.file is None:
            raise LoraxError("only a network that was made from weights can be merged.")
        self._put_on_live()
        self.load(self.file)
        self.take_off()
        with torch.no_grad():
            for adapter in self.modules_by_name.values():
                weight = live_weight(adapter.layer)
                delta = adapter.factors().scaled(self.multiplier).dense().reshape(weight.shape)
                weight.copy_(weight.float() + delta.to(weight.device))


def _network(
    multiplier: float, k: int, text_encoder: Any, unet: nn.Module, options: NetworkOptions, keep: set[Any] | None = None
) -> KohyaNetwork:
    encoders = _encoders(text_encoder)
    arch = live_arch(unet, encoders)
    live = live_layers(arch, unet, encoders)
    if keep is not None:
        live = {layer: module for layer, module in live.items() if layer in keep}
    network = KohyaNetwork(arch, chosen_layers(arch, live, options.target, options.exclude), k, options)
    network.set_multiplier(multiplier)
    missing = [c.value for c in (Component.UNET,) if not any(i.component == c for i in live)]
    if missing:
        log.warning("LoRA-X: no layer of %s is in the file", ", ".join(missing))
    return network


def _encoders(text_encoder: Any) -> list[nn.Module]:
    found = list(text_encoder) if isinstance(text_encoder, (list, tuple)) else [text_encoder]
    return [encoder for encoder in found if encoder is not None]


def _rate(rates: Rates, index: int, default: float | None) -> float | None:
    if rates is None:
        return default
    if isinstance(rates, (int, float)):
        return float(rates)
    values = list(rates)
    return default if not values else float(values[min(index, len(values) - 1)])
