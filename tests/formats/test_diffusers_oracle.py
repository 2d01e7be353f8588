"""diffusers loads what we write: no key left over, and the fused weights equal base + our delta."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lorax.archs import by_name
from lorax.formats import read_adapter, write_adapter
from lorax.layers import Component, LayerId, LayerKind
from lorax.linalg import Factors, flatten_weight

pytestmark = pytest.mark.filterwarnings("ignore")  # deprecations of diffusers, transformers and peft are not ours to fix

CONTEXT = 16
SD1 = {
    "block_out_channels": (8, 16, 24, 24),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "attention_head_dim": 2,
}
SDXL = {
    "block_out_channels": (8, 16, 24),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (2, 4, 4),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 6 * 4 + CONTEXT,
    "transformer_layers_per_block": (1, 2, 10),
}


def pipeline(name: str) -> Any:
    """A narrow pipeline with all the blocks of the true one and random weights."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(0)
    common = {"norm_num_groups": 4, "cross_attention_dim": CONTEXT, "sample_size": 8}
    unet = UNet2DConditionModel(**common, **(SD1 if name == "sd1" else SDXL))

    def text(layers: int) -> Any:
        sizes = {"hidden_size": CONTEXT, "intermediate_size": 24, "projection_dim": CONTEXT}
        return CLIPTextConfig(num_hidden_layers=layers, num_attention_heads=2, vocab_size=10, **sizes)

    parts = {"vae": None, "tokenizer": None, "unet": unet, "scheduler": DDIMScheduler(), "text_encoder": CLIPTextModel(text(12))}
    if name == "sdxl":
        te2 = CLIPTextModelWithProjection(text(32))
        return StableDiffusionXLPipeline(**parts, tokenizer_2=None, text_encoder_2=te2)
    return StableDiffusionPipeline(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def weights(pipe: Any, name: str) -> dict[LayerId, nn.Module]:
    """The linear and convolutional layers of a pipeline by our names."""
    models = {Component.UNET: pipe.unet, Component.TE1: pipe.text_encoder, Component.TE2: getattr(pipe, "text_encoder_2", None)}
    found: dict[LayerId, nn.Module] = {}
    for spec in by_name(name).layers():
        if spec.kind in (LayerKind.LINEAR, LayerKind.CONV):
            model = models[spec.id.component]
            path = spec.id.path
            if spec.id.component != Component.UNET and not hasattr(model, "text_model"):
                path = path.removeprefix("text_model.")
            found[spec.id] = model.get_submodule(path)
    return found


@pytest.mark.parametrize("name", ["sd1", "sdxl"])
@pytest.mark.parametrize("format", ["kohya", "peft"])
def test_fused_weights_are_base_plus_our_delta(tmp_path: Path, name: str, format: str, caplog: pytest.LogCaptureFixture) -> None:
    arch, pipe = by_name(name), pipeline(name)
    layers = weights(pipe, name)
    base = {i: m.weight.detach().clone() for i, m in layers.items()}
    skipped = re.compile(r"conv_in|conv_out|time_embedding|add_embedding")  # no trainer touches these, nor does diffusers map them
    left_out = re.compile(r"transformer_blocks\.[1-8]\.|layers\.\d*[1-9]\.")  # to be quick
    generator = torch.Generator().manual_seed(1)
    modules: dict[LayerId, Factors] = {}
    for n, (i, weight) in enumerate(base.items()):
        if skipped.search(i.path) or (name == "sdxl" and left_out.search(i.path)):
            continue
        out, columns = flatten_weight(weight).shape
        r = 2 + n % 3
        modules[i] = Factors(torch.randn(out, r, generator=generator) * 1e-3, torch.randn(r, columns, generator=generator) * 1e2)
    path = tmp_path / "out.safetensors"
    write_adapter(path, modules, arch, shapes={i: tuple(w.shape) for i, w in base.items()}, format=format, metadata={})

    import diffusers

    diffusers.utils.logging.enable_propagation()
    with caplog.at_level(logging.WARNING):
        pipe.load_lora_weights(str(tmp_path), weight_name="out.safetensors")
    assert not [r.message for r in caplog.records if "key" in r.message.lower() or "lora" in r.message.lower()]
    parts = ["unet", "text_encoder"] + (["text_encoder_2"] if name == "sdxl" else [])
    pipe.fuse_lora(components=parts)
    ours = read_adapter(path, arch)
    assert ours.modules.keys() == modules.keys()
    for i, layer in weights(pipe, name).items():
        expected = flatten_weight(base[i])
        if i in modules:
            assert type(layer).__module__.startswith("peft."), f"{i} was not loaded"
            expected = expected + ours.modules[i].delta()
            torch.testing.assert_close(ours.modules[i].delta(), modules[i].dense(), rtol=2e-2, atol=2e-3)
        fused: Tensor = getattr(layer, "base_layer", layer).weight.detach()
        torch.testing.assert_close(flatten_weight(fused), expected, rtol=1e-4, atol=1e-5, msg=str(i))


CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "alpha": {"lora_alpha": 2},
    "patterns": {"lora_alpha": 2, "rank_pattern": {"to_k": 2}, "alpha_pattern": {"attn2.to_k": 3}},
    "rank-stabilised": {"lora_alpha": 3, "use_rslora": True},
    "dora": {"lora_alpha": 2, "use_dora": True},
}


@pytest.mark.parametrize("kind", CONFIGURATIONS)
def test_files_that_diffusers_saves(tmp_path: Path, kind: str) -> None:
    from peft import LoraConfig, get_peft_model_state_dict

    pipe = pipeline("sd1")
    base = {i: m.weight.detach().clone() for i, m in weights(pipe, "sd1").items()}
    targets = ["to_q", "to_k", "to_out.0", "proj_in", "conv1"]
    pipe.unet.add_adapter(LoraConfig(r=4, target_modules=targets, **CONFIGURATIONS[kind]))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, p in pipe.unet.named_parameters():
            if "lora_B" in name:
                p.copy_(torch.randn(p.shape, generator=generator) * 0.1)
            if "magnitude" in name:
                p.mul_(1.3)
    state = get_peft_model_state_dict(pipe.unet)
    config = pipe.unet.peft_config["default"].to_dict()
    pipe.save_lora_weights(str(tmp_path), unet_lora_layers=state, unet_lora_adapter_metadata=config)
    adapter = read_adapter(tmp_path / "pytorch_lora_weights.safetensors")
    assert adapter.arch.name == "sd1"
    assert not adapter.unmatched
    pipe.unet.fuse_lora()
    touched = {i for i, layer in weights(pipe, "sd1").items() if hasattr(layer, "lora_A")}
    assert adapter.modules.keys() == touched
    for i in touched:
        fused = flatten_weight(weights(pipe, "sd1")[i].base_layer.weight.detach())
        delta = adapter.modules[i].delta(base[i])
        torch.testing.assert_close(delta, fused - flatten_weight(base[i]), rtol=1e-3, atol=1e-5, msg=str(i))
