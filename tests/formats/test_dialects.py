"""Spellings of the same adapter, found in the field."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lorax.adapter import Adapter, Decomposed, LowRank
from lorax.archs import ARCHS, by_name, family_parent, kohya_name, kohya_names
from lorax.errors import BaseMismatch
from lorax.formats import read_adapter, write_adapter
from lorax.layers import Component, LayerId, LayerKind
from tests.families import two_levels
from tests.formats.made import layer_shapes, random_factors

Q = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
OUT = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0"
TEXT = "text_model.encoder.layers.3.self_attn.q_proj"
UNET, TE1, TE2 = Component.UNET, Component.TE1, Component.TE2


def read(folder: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None, arch: str | None = None) -> Adapter:
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "a.safetensors", metadata)
    return read_adapter(folder / "a.safetensors", by_name(arch) if arch else None)


def pair(down: str, up: str, r: int = 2) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(len(down))
    return {down: torch.randn(r, 8, generator=g), up: torch.randn(12, r, generator=g)}


DOTTED = {
    f"unet.{Q}.lora_A.weight": (f"unet.{Q}.lora_B.weight", UNET, Q),
    f"unet.{Q}.lora_A.default.weight": (f"unet.{Q}.lora_B.default.weight", UNET, Q),
    f"unet.{OUT}.lora_A.style_1.weight": (f"unet.{OUT}.lora_B.style_1.weight", UNET, OUT),
    f"base_model.model.unet.{Q}.lora_A.weight": (f"base_model.model.unet.{Q}.lora_B.weight", UNET, Q),
    f"base_model.model.{Q}.lora_A.weight": (f"base_model.model.{Q}.lora_B.weight", UNET, Q),
    f"{Q}.lora_A.weight": (f"{Q}.lora_B.weight", UNET, Q),
    f"unet.{Q}.lora.down.weight": (f"unet.{Q}.lora.up.weight", UNET, Q),
    f"unet.{Q}.lora_down.weight": (f"unet.{Q}.lora_up.weight", UNET, Q),
    f"unet.{Q[:-5]}.to_q_lora.down.weight": (f"unet.{Q[:-5]}.to_q_lora.up.weight", UNET, Q),
    f"{Q[:-5]}.processor.to_q_lora.down.weight": (f"{Q[:-5]}.processor.to_q_lora.up.weight", UNET, Q),
    f"unet.{Q[:-5]}.processor.to_out_lora.down.weight": (f"unet.{Q[:-5]}.processor.to_out_lora.up.weight", UNET, OUT),
    f"text_encoder.{TEXT}.lora_A.weight": (f"text_encoder.{TEXT}.lora_B.weight", TE1, TEXT),
    f"text_encoder.{TEXT}.lora_linear_layer.down.weight": (f"text_encoder.{TEXT}.lora_linear_layer.up.weight", TE1, TEXT),
    f"text_encoder.{TEXT[:-7]}.to_q_lora.down.weight": (f"text_encoder.{TEXT[:-7]}.to_q_lora.up.weight", TE1, TEXT),
    f"base_model.model.{TEXT}.lora_A.weight": (f"base_model.model.{TEXT}.lora_B.weight", TE1, TEXT),
    "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q.lora_A.weight": (
        "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q.lora_B.weight",
        UNET,
        Q,
    ),
}


@pytest.mark.parametrize("down", DOTTED)
def test_dotted_names(tmp_path: Path, down: str) -> None:
    up, component, path = DOTTED[down]
    tensors = pair(down, up)
    adapter = read(tmp_path, tensors)
    assert adapter.format == "peft"
    assert list(adapter.modules) == [LayerId(component, path)]
    torch.testing.assert_close(adapter.modules[LayerId(component, path)].delta(), tensors[up] @ tensors[down])


def test_second_text_encoder_in_dotted_names(tmp_path: Path) -> None:
    adapter = read(tmp_path, pair(f"text_encoder_2.{TEXT}.lora_A.weight", f"text_encoder_2.{TEXT}.lora_B.weight"))
    assert adapter.family == "sdxl"
    assert list(adapter.modules) == [LayerId(TE2, TEXT)]


UNDERSCORED = [
    ("sd1", "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q", UNET, Q, "kohya"),
    ("sd1", "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q", UNET, Q, "kohya"),
    ("sd1", "lycoris_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q", UNET, Q, "kohya"),
    ("sd1", "lora_te_text_model_encoder_layers_3_self_attn_q_proj", TE1, TEXT, "kohya"),
    ("sdxl", "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q", UNET, Q, "kohya"),
    ("sdxl", "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q", UNET, Q, "onetrainer"),
    ("sdxl", "lora_te1_text_model_encoder_layers_3_self_attn_q_proj", TE1, TEXT, "kohya"),
    ("sdxl", "lora_te2_text_model_encoder_layers_3_self_attn_q_proj", TE2, TEXT, "kohya"),
]


@pytest.mark.parametrize(("arch", "name", "component", "path", "dialect"), UNDERSCORED)
def test_underscored_names(tmp_path: Path, arch: str, name: str, component: Component, path: str, dialect: str) -> None:
    tensors = pair(f"{name}.lora_down.weight", f"{name}.lora_up.weight") | {f"{name}.alpha": torch.tensor(1.0)}
    adapter = read(tmp_path, tensors, arch=arch)
    assert adapter.format == dialect
    delta = adapter.modules[LayerId(component, path)].delta()
    torch.testing.assert_close(delta, 0.5 * tensors[f"{name}.lora_up.weight"] @ tensors[f"{name}.lora_down.weight"])


def test_oft_prefix_of_kohya(tmp_path: Path) -> None:
    name = "oft_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    adapter = read(tmp_path, {f"{name}.oft_blocks": torch.randn(4, 3, 3), f"{name}.alpha": torch.tensor(0.01)}, arch="sdxl")
    assert adapter.modules[LayerId(UNET, Q)].kind == "oft"
    assert adapter.needs_base


@pytest.mark.parametrize(("alpha", "scale", "expected"), [(None, None, 1.0), (4.0, None, 2.0), (4.0, 0.25, 0.25), (0.0, None, 0.0)])
def test_scales(tmp_path: Path, alpha: float | None, scale: float | None, expected: float) -> None:
    name = UNDERSCORED[0][1]
    tensors = pair(f"{name}.lora_down.weight", f"{name}.lora_up.weight")
    tensors |= {f"{name}.{leaf}": torch.tensor(v) for leaf, v in (("alpha", alpha), ("scale", scale)) if v is not None}
    module = read(tmp_path, tensors).modules[LayerId(UNET, Q)]
    assert isinstance(module, LowRank)
    assert module.scale == expected


def test_alpha_of_peft_metadata(tmp_path: Path) -> None:
    tensors = pair(f"unet.{Q}.lora_A.weight", f"unet.{Q}.lora_B.weight") | pair(f"unet.{OUT}.lora_A.weight", f"unet.{OUT}.lora_B.weight")
    config = {"unet.r": 2, "unet.lora_alpha": 6, "unet.alpha_pattern": {"attn1.to_out.0": 1}}
    adapter = read(tmp_path, tensors, {"lora_adapter_metadata": json.dumps(config)})
    scales = {layer.path: m.scale for layer, m in adapter.modules.items() if isinstance(m, LowRank)}
    assert scales == {Q: 3.0, OUT: 0.5}


@pytest.mark.parametrize("broken", ["{", "[]", "null", '{"unet.lora_alpha": "x"}', '{"unet.alpha_pattern": {"(": 1}}'])
def test_broken_peft_metadata_is_as_none(tmp_path: Path, broken: str) -> None:
    adapter = read(tmp_path, pair(f"unet.{Q}.lora_A.weight", f"unet.{Q}.lora_B.weight"), {"lora_adapter_metadata": broken})
    module = adapter.modules[LayerId(UNET, Q)]
    assert isinstance(module, LowRank)
    assert module.scale == 1.0


def test_peft_dora_and_bias(tmp_path: Path) -> None:
    tensors = pair(f"unet.{Q}.lora_A.weight", f"unet.{Q}.lora_B.weight")
    tensors |= {f"unet.{Q}.lora_magnitude_vector": torch.rand(12), f"unet.{Q}.lora_B.bias": torch.randn(12)}
    adapter = read(tmp_path, tensors)
    module = adapter.modules[LayerId(UNET, Q)]
    assert isinstance(module, Decomposed)
    assert module.on_output
    torch.testing.assert_close(adapter.offsets[LayerId(UNET, Q)].bias, tensors[f"unet.{Q}.lora_B.bias"])


def test_norms_and_biases_are_offsets(tmp_path: Path) -> None:
    name = "lora_unet_down_blocks_1_attentions_0_norm"
    q = UNDERSCORED[0][1]
    tensors = {f"{name}.w_norm": torch.ones(8), f"{name}.b_norm": torch.zeros(8), f"{q}.diff": torch.ones(12, 8)}
    adapter = read(tmp_path, tensors | {f"{q}.diff_b": torch.ones(12)}, arch="sd1")
    norm = adapter.offsets[LayerId(UNET, "down_blocks.1.attentions.0.norm")]
    assert norm.weight is not None
    assert norm.bias is not None
    assert adapter.modules[LayerId(UNET, Q)].kind == "full"
    assert adapter.offsets[LayerId(UNET, Q)].bias is not None
    assert adapter.components == (UNET,)


def test_bundled_embeddings_are_reported(tmp_path: Path) -> None:
    name = UNDERSCORED[4][1]
    tensors = pair(f"{name}.lora_down.weight", f"{name}.lora_up.weight") | {"bundle_emb.style.clip_l": torch.randn(2, 768)}
    adapter = read(tmp_path, tensors)
    assert [key for key, _ in adapter.unmatched] == ["bundle_emb.style.clip_l"]
    assert "textual inversion embedding bundled" in adapter.unmatched[0][1]


SGM = "input_blocks.4.1.transformer_blocks.0.attn1.to_q"
ONETRAINER = {
    "omi": [(f"unet.{SGM}", UNET, Q), (f"clip_l.{TEXT}", TE1, TEXT), (f"clip_g.{TEXT}", TE2, TEXT)],
    "internal": [(f"lora_unet.{Q}", UNET, Q), (f"lora_te1.{TEXT}", TE1, TEXT), (f"lora_te2.{TEXT}", TE2, TEXT)],
    "comfy": [
        (f"diffusion_model.{SGM}", UNET, Q),
        (f"text_encoders.clip_l.transformer.{TEXT}", TE1, TEXT),
        (f"text_encoders.clip_g.transformer.{TEXT}", TE2, TEXT),
    ],
}


@pytest.mark.parametrize("style", ONETRAINER)
def test_dotted_names_of_onetrainer(tmp_path: Path, style: str) -> None:
    tensors: dict[str, Tensor] = {}
    for module, _, _ in ONETRAINER[style]:
        tensors |= pair(f"{module}.lora_down.weight", f"{module}.lora_up.weight") | {f"{module}.alpha": torch.tensor(1.0)}
    adapter = read(tmp_path, tensors)
    assert (adapter.family, adapter.unmatched) == ("sdxl", ())
    assert list(adapter.modules) == [LayerId(c, p) for _, c, p in sorted(ONETRAINER[style])]


@pytest.mark.parametrize("name", [arch.name for arch in ARCHS])
@pytest.mark.parametrize("format", ["kohya", "peft"])
def test_family_is_told_from_names_alone(tmp_path: Path, name: str, format: str) -> None:
    arch = by_name(name)
    shapes = layer_shapes(name, "attentions")
    if arch.family == "sd2":  # linear there, a convolution in SD1
        shapes = {i: s[:2] for i, s in shapes.items()}
    write_adapter(tmp_path / "a.safetensors", random_factors(shapes), arch, shapes=shapes, format=format, metadata={})
    adapter = read_adapter(tmp_path / "a.safetensors")
    assert adapter.family == arch.family
    assert adapter.modules.keys() == shapes.keys()


def test_the_likely_architecture_places_what_no_known_one_does(tmp_path: Path) -> None:
    arch = two_levels()
    shapes = {s.id: (12, 8) for s in arch.layers() if s.unit.kind == "transformer" and s.kind == LayerKind.LINEAR}
    write_adapter(tmp_path / "a.safetensors", random_factors(shapes), arch, shapes=shapes, metadata={})
    guessed, told = read_adapter(tmp_path / "a.safetensors"), read_adapter(tmp_path / "a.safetensors", likely=arch)
    assert guessed.modules.keys() < shapes.keys()
    assert len(guessed.unmatched) == 3 * (len(shapes) - len(guessed.modules))
    assert (told.modules.keys(), told.unmatched) == (shapes.keys(), ())


@pytest.mark.parametrize("pruned", ["bk-sdm-base", "bk-sdm-tiny", "ssd-1b", "vega"])
def test_of_equals_the_parent_is_taken(tmp_path: Path, pruned: str) -> None:
    """Layers that a pruning has too say nothing about it: its blocks of the same names descend from other ones."""
    arch = by_name(pruned)
    parent = family_parent(arch.family)
    both = {i: s for i, s in layer_shapes(pruned, "attn").items() if kohya_names(parent).get(kohya_name(arch, i)) == i}
    write_adapter(tmp_path / "a.safetensors", random_factors(both), arch, shapes=both, metadata={})
    for likely in (None, arch):
        assert read_adapter(tmp_path / "a.safetensors", likely=likely).arch == parent


@pytest.mark.parametrize(
    ("metadata", "family"), [({"ss_v2": "True"}, "sd2"), ({"modelspec.architecture": "stable-diffusion-v1/lora"}, "sd1")]
)
def test_metadata_tells_the_second_version(tmp_path: Path, metadata: dict[str, str], family: str) -> None:
    name = UNDERSCORED[0][1]
    assert read(tmp_path, pair(f"{name}.lora_down.weight", f"{name}.lora_up.weight"), metadata).family == family


def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    shapes = layer_shapes("sdxl", "transformer_blocks")
    write_adapter(tmp_path / "a.safetensors", random_factors(shapes), by_name("sdxl"), shapes=shapes, metadata={})
    with pytest.raises(BaseMismatch, match=r"'a.safetensors' is an adapter for Stable Diffusion XL: only \d+ of its 700 modules exist in"):
        read_adapter(tmp_path / "a.safetensors", by_name("sd1"))


def test_blocks_that_a_pruned_base_lacks_are_reported(tmp_path: Path) -> None:
    shapes = {i: s for i, s in layer_shapes("sdxl", "down_blocks.1").items() if "resnets" in i.path}
    shapes |= layer_shapes("sdxl", "mid_block.attentions.0.transformer_blocks.1.attn1")
    write_adapter(tmp_path / "a.safetensors", random_factors(shapes), by_name("sdxl"), shapes=shapes, metadata={})
    adapter = read_adapter(tmp_path / "a.safetensors", by_name("ssd-1b"))
    assert len(adapter.unmatched) == 12
    assert all("no layer of" in reason for _, reason in adapter.unmatched)
    assert all("middle_block" in key for key, _ in adapter.unmatched)


def test_every_layer_has_a_name_that_reads_back(tmp_path: Path) -> None:
    arch = by_name("sdxl")
    names = {s.id: kohya_name(arch, s.id) for s in arch.layers() if s.kind in (LayerKind.LINEAR, LayerKind.CONV)}
    tensors = {f"{n}.lora_up.weight": torch.ones(2, 1) for n in names.values()}
    tensors |= {f"{n}.lora_down.weight": torch.ones(1, 2) for n in names.values()}
    assert read(tmp_path, tensors).modules.keys() == names.keys()


@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_networks_that_the_base_file_lacks_are_read_all_the_same(tmp_path: Path, name: str) -> None:
    arch, shapes = by_name(name), layer_shapes(name, "attn")
    write_adapter(tmp_path / "a.safetensors", random_factors(shapes), arch, shapes=shapes, metadata={})
    for part in (arch.with_parts(arch.unet, ()), arch.with_parts(None, arch.text)):
        adapter = read_adapter(tmp_path / "a.safetensors", part)
        assert adapter.components == arch.components
        assert not adapter.unmatched
