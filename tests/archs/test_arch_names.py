"""Every layer has one canonical name, and no adapter name means two layers."""

from __future__ import annotations

import pytest

from lorax.archs import ARCHS, kohya_name, kohya_names, kohya_spellings, peft_name, peft_names
from lorax.layers import Component, LayerId
from lorax.structure import Arch


@pytest.fixture(params=ARCHS, ids=lambda arch: arch.name)
def arch(request: pytest.FixtureRequest) -> Arch:
    return request.param


def test_no_two_layers_share_a_name(arch: Arch) -> None:
    layers = arch.layers()
    assert len({spec.id for spec in layers}) == len(layers)
    assert len({(spec.id.component, spec.single_file) for spec in layers}) == len(layers)
    assert len({(spec.id.component, spec.diffusers) for spec in layers}) == len(layers)
    spellings = kohya_spellings(arch)
    assert len(kohya_names(arch)) == sum(len(names) for names in spellings.values())
    text = sum(spec.id.component != Component.UNET for spec in layers)
    assert len(peft_names(arch)) == len(layers) + text


def test_written_names_are_accepted_names(arch: Arch) -> None:
    for spec in arch.layers():
        assert kohya_names(arch)[kohya_name(arch, spec.id)] == spec.id
        assert peft_names(arch)[peft_name(arch, spec.id)] == spec.id


def test_unit_indices_follow_the_order_of_execution(arch: Arch) -> None:
    for component in arch.components:
        indices = [spec.unit.index for spec in arch.layers() if spec.id.component == component and spec.unit.kind != "fixed"]
        assert indices == sorted(indices)
        assert set(indices) == set(range(1, max(indices) + 1))


def test_written_names_are_those_of_the_field() -> None:
    q = LayerId(Component.UNET, "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q")
    names = {arch.name: kohya_name(arch, q) for arch in ARCHS}
    assert names["sd1"] == "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
    assert names["sdxl"] == "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
