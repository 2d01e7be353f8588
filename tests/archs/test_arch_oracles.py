"""Our layer names and structures against models that diffusers and transformers build from the true configurations, diffusers'
converters, and sd-mecha's key lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lorax.archs import by_name, detect, kohya_name, kohya_names, peft_name
from lorax.layers import Component, LayerKind, LayerSpec
from lorax.structure import Arch, TextStructure, parse_text, parse_unet

pytestmark = pytest.mark.filterwarnings("ignore")  # third-party deprecations are not ours to fix

_SD = {
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}
_SD1 = {**_SD, "cross_attention_dim": 768, "attention_head_dim": 8}
_SD2 = {**_SD, "cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True}
_TINY = {
    "layers_per_block": 1,
    "mid_block_type": None,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3,
    "up_block_types": ("CrossAttnUpBlock2D",) * 3,
}
_SDXL = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}

CONFIGS: dict[str, dict[str, Any]] = {
    "sd1": _SD1,
    "bk-sdm-base": {**_SD1, "layers_per_block": 1},
    "bk-sdm-small": {**_SD1, "layers_per_block": 1, "mid_block_type": None},
    "bk-sdm-tiny": {**_SD1, **_TINY},
    "sd2": _SD2,
    "bk-sdm-v2-base": {**_SD2, "layers_per_block": 1},
    "bk-sdm-v2-small": {**_SD2, "layers_per_block": 1, "mid_block_type": None},
    "bk-sdm-v2-tiny": {**_SD2, **_TINY, "attention_head_dim": (5, 10, 20)},
    "sdxl": {**_SDXL, "transformer_layers_per_block": (1, 2, 10)},
    "ssd-1b": {
        **_SDXL,
        "mid_block_type": "UNetMidBlock2D",
        "transformer_layers_per_block": (0, (2, 2), (4, 4)),
        "reverse_transformer_layers_per_block": ((4, 4, 10), (2, 1, 1), 1),
    },
    "vega": {
        **_SDXL,
        "mid_block_type": "UNetMidBlock2D",
        "transformer_layers_per_block": (0, (1, 1), (2, 2)),
        "reverse_transformer_layers_per_block": ((2, 2, 2), (1, 1, 1), 1),
    },
    "koala-700m": {**_SDXL, "layers_per_block": 1, "mid_block_type": None, "transformer_layers_per_block": (0, 2, 5)},
    "koala-1b": {**_SDXL, "layers_per_block": 1, "transformer_layers_per_block": (0, 2, 6)},
}
PARAMETERS = {"sd1": 859.52e6, "sd2": 865.91e6, "sdxl": 2567.46e6, "ssd-1b": 1330e6, "vega": 745e6, "koala-700m": 782e6, "koala-1b": 1161e6}
"""As the models' own pages give them; KOALA counts are of its paper's table."""
PARAMETERS |= {"bk-sdm-base": 579.4e6, "bk-sdm-small": 482.3e6, "bk-sdm-tiny": 323.4e6}


def unet_shapes(name: str) -> dict[str, tuple[int, ...]]:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        model = UNet2DConditionModel(sample_size=64, **CONFIGS[name])
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


def unet_specs(arch: Arch) -> list[LayerSpec]:
    return [spec for spec in arch.layers() if spec.id.component == Component.UNET]


@pytest.mark.parametrize("name", CONFIGS)
def test_unet_is_the_one_that_diffusers_builds(name: str) -> None:
    shapes, arch = unet_shapes(name), by_name(name)
    parsed = parse_unet(shapes)
    assert parsed is not None
    assert parsed[1] == "diffusers"
    assert detect(parsed[0]).name == name
    specs = unet_specs(arch)
    assert {spec.diffusers.module + spec.diffusers.suffix for spec in specs} == {k for k in shapes if k.endswith(".weight")}
    ranks = {LayerKind.LINEAR: 2, LayerKind.CONV: 4, LayerKind.NORM: 1}
    assert all(len(shapes[spec.diffusers.module + ".weight"]) == ranks[spec.kind] for spec in specs)
    total = sum(torch.Size(shape).numel() for shape in shapes.values())
    assert total == pytest.approx(PARAMETERS.get(name, total), rel=0.01)


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl", "ssd-1b", "vega", "koala-1b"])
def test_unet_names_agree_with_diffusers_converter(name: str) -> None:
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    specs = unet_specs(by_name(name))
    ldm: dict[str, torch.Tensor] = {}
    for i, spec in enumerate(specs):
        ldm[f"model.diffusion_model.{spec.single_file.module}.weight"] = torch.tensor([2 * i])
        ldm[f"model.diffusion_model.{spec.single_file.module}.bias"] = torch.tensor([2 * i + 1])
    config = {"layers_per_block": 2, **CONFIGS[name]}
    found = {int(value): key for key, value in convert_ldm_unet_checkpoint(ldm, config).items()}
    for i, spec in enumerate(specs):
        assert found.get(2 * i) == f"{spec.diffusers.module}.weight"
        assert found.get(2 * i + 1) == f"{spec.diffusers.module}.bias"


def test_bk_sdm_single_file_leaves_the_numbers_of_removed_blocks_free() -> None:
    """As diffusers' scripts/convert_diffusers_to_original_stable_diffusion.py numbers them, and stable-diffusion.cpp reads them."""
    names = {s.diffusers.module: s.single_file.module for s in unet_specs(by_name("bk-sdm-base"))}
    assert names["down_blocks.1.resnets.0.conv1"] == "input_blocks.4.0.in_layers.2"
    assert names["down_blocks.1.attentions.0.proj_in"] == "input_blocks.4.1.proj_in"
    assert names["down_blocks.0.downsamplers.0.conv"] == "input_blocks.3.0.op"
    assert names["down_blocks.3.resnets.0.conv1"] == "input_blocks.10.0.in_layers.2"
    assert names["up_blocks.0.resnets.1.conv1"] == "output_blocks.1.0.in_layers.2"
    assert names["up_blocks.0.upsamplers.0.conv"] == "output_blocks.2.1.conv"
    assert names["up_blocks.1.upsamplers.0.conv"] == "output_blocks.5.2.conv"
    assert names["up_blocks.3.attentions.1.proj_in"] == "output_blocks.10.1.proj_in"


@pytest.mark.parametrize("name", CONFIGS)
def test_single_file_names_parse_back(name: str) -> None:
    shapes, arch = unet_shapes(name), by_name(name)
    single = {f"{s.single_file.module}.weight": shapes[f"{s.diffusers.module}.weight"] for s in unet_specs(arch)}
    assert parse_unet(single) == (arch.unet, "single_file")


@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_single_file_names_and_ranks_agree_with_sd_mecha(name: str) -> None:
    import sd_mecha
    import yaml

    config = {"sd1": "sd1-ldm", "sdxl": "sdxl-sgm"}[name]
    text = (Path(sd_mecha.__file__).parent / "extensions/builtin/model_configs" / f"{config}.yaml").read_text()
    keys = {key: tuple(info["shape"]) for part in yaml.safe_load(text)["components"].values() for key, info in part.items()}
    prefixes = {Component.UNET: "model.diffusion_model.", Component.TE1: "cond_stage_model.transformer."}
    if name == "sdxl":
        prefixes |= {Component.TE1: "conditioner.embedders.0.transformer.", Component.TE2: "conditioner.embedders.1.model."}
    ours = {prefixes[s.id.component] + s.single_file.module + s.single_file.suffix for s in by_name(name).layers()}
    theirs = {key for key in keys if key.startswith(tuple(prefixes.values()))}
    theirs = {key for key in theirs if not key.endswith(("bias", "position_ids", "logit_scale", "text_projection"))}
    assert ours == theirs
    if name == "sd1":
        shapes = {k.removeprefix("model.diffusion_model."): v for k, v in keys.items()}
        assert parse_unet(shapes) == (by_name(name).unet, "single_file")


def text_specs(kind: str, layers: int) -> list[LayerSpec]:
    arch = by_name("sd1").with_parts(None, ((Component.TE1, TextStructure(kind, layers)),))
    return list(arch.layers())


def test_text_encoder_is_the_one_that_transformers_builds() -> None:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    with torch.device("meta"):
        keys = list(CLIPTextModelWithProjection(CLIPTextConfig(num_hidden_layers=3)).state_dict())
    assert parse_text(keys) == TextStructure("clip", 3)
    ours = {spec.diffusers.module + ".weight" for spec in text_specs("openclip", 3)}
    assert ours == {key for key in keys if key.endswith(".weight")} - {"text_projection.weight"}


def test_clip_names_agree_with_diffusers_converter() -> None:
    from diffusers.loaders.single_file_utils import convert_ldm_clip_checkpoint

    specs = text_specs("clip", 12)
    ldm = {f"cond_stage_model.transformer.{s.single_file.module}.weight": torch.tensor([i]) for i, s in enumerate(specs)}
    found = {int(value): key for key, value in convert_ldm_clip_checkpoint(ldm).items()}
    assert [found[i] for i in range(len(specs))] == [f"{spec.diffusers.module}.weight" for spec in specs]


@pytest.mark.parametrize(("prefix", "layers"), [("cond_stage_model.model.", 23), ("conditioner.embedders.1.model.", 32)])
def test_openclip_names_agree_with_diffusers_converter(prefix: str, layers: int) -> None:
    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    specs = text_specs("openclip", layers)
    ldm: dict[str, torch.Tensor] = {}
    for i, spec in enumerate(specs):
        stored = spec.single_file
        ldm.setdefault(prefix + stored.module + stored.suffix, torch.zeros(stored.parts, 1))[stored.part] = i
    with torch.device("meta"):
        model = CLIPTextModelWithProjection(CLIPTextConfig(hidden_size=1, num_attention_heads=1, num_hidden_layers=0))
    converted = convert_open_clip_checkpoint(model, ldm, prefix)
    found = {int(value[0]): key for key, value in converted.items()}
    assert [found[i] for i in range(len(specs))] == [f"{spec.diffusers.module}.weight" for spec in specs]


@pytest.mark.parametrize("name", ["sd1", "sdxl", "ssd-1b"])
def test_kohya_names_reach_the_same_module_in_diffusers(name: str) -> None:
    from types import SimpleNamespace

    from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_lora_to_diffusers, _maybe_map_sgm_blocks_to_diffusers

    arch = by_name(name)
    specs = [s for s in arch.layers() if s.kind in (LayerKind.LINEAR, LayerKind.CONV)]
    state: dict[str, torch.Tensor] = {}
    for i, spec in enumerate(specs):
        state[f"{kohya_name(arch, spec.id)}.lora_down.weight"] = torch.tensor([i])
        state[f"{kohya_name(arch, spec.id)}.lora_up.weight"] = torch.tensor([-1])
    state = _maybe_map_sgm_blocks_to_diffusers(state, SimpleNamespace(layers_per_block=2))
    converted, _ = _convert_non_diffusers_lora_to_diffusers(state)
    found = {int(value): plain(key) for key, value in converted.items() if int(value) >= 0}
    for i, spec in enumerate(specs):
        assert found[i] == peft_name(arch, spec.id)


def plain(key: str) -> str:
    """diffusers' attention-processor spelling of a module as its path."""
    key = key.removesuffix(".weight").removesuffix(".down").removesuffix(".lora").removesuffix("_lora").removesuffix(".lora_linear_layer")
    if key.startswith("text_encoder"):
        key = key.replace("self_attn.to_out", "self_attn.out_proj")
        return key if ".to_" not in key else key.replace(".to_", ".") + "_proj"
    return key.replace(".processor", "") + (".0" if key.endswith("to_out") else "")


def test_names_of_layers_outside_the_blocks() -> None:
    """LyCORIS and full-layer names, as they occur in the field, in both spellings."""
    sdxl, sd1 = kohya_names(by_name("sdxl")), kohya_names(by_name("sd1"))
    assert sdxl["lora_unet_input_blocks_0_0"].path == sdxl["lora_unet_conv_in"].path == "conv_in"
    assert sdxl["lora_unet_time_embed_0"].path == sdxl["lora_unet_time_embedding_linear_1"].path == "time_embedding.linear_1"
    assert sdxl["lora_unet_label_emb_0_0"].path == sdxl["lora_unet_add_embedding_linear_1"].path == "add_embedding.linear_1"
    assert sdxl["lora_unet_out_2"].path == sdxl["lora_unet_conv_out"].path == "conv_out"
    assert sdxl["lora_unet_input_blocks_3_0_op"].path == "down_blocks.0.downsamplers.0.conv"
    assert sdxl["lora_unet_output_blocks_2_2_conv"].path == "up_blocks.0.upsamplers.0.conv"
    assert sdxl["lora_unet_input_blocks_4_0_skip_connection"].path == "down_blocks.1.resnets.0.conv_shortcut"
    assert sdxl["lora_unet_down_blocks_1_attentions_0_norm"].path == "down_blocks.1.attentions.0.norm"
    assert sd1["lora_unet_down_blocks_0_resnets_0_norm1"].path == "down_blocks.0.resnets.0.norm1"
    assert sd1["lora_unet_output_blocks_2_1_conv"].path == "up_blocks.0.upsamplers.0.conv"
    assert sd1["lora_te_text_model_encoder_layers_0_mlp_fc1"].component == Component.TE1
    assert sdxl["lora_te2_text_model_encoder_layers_31_self_attn_q_proj"].component == Component.TE2
    assert kohya_names(by_name("sd2"))["lora_te_text_model_encoder_layers_22_self_attn_out_proj"].component == Component.TE1
