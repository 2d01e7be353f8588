"""What a host gets beyond the converter's file: biases, norms, and every name that the target's own layout has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from converter.samples import TINY, block_map, sample_checkpoint
from lorax import open_checkpoint, read_adapter
from lorax.adapter import Offset
from lorax.archs import by_name
from lorax.formats import write_adapter
from lorax.hosts.base import Carried, KnownBase, RetargetOptions, Wish
from lorax.layers import Component, LayerId, LayerKind, LayerSpec
from lorax.linalg import Factors
from lorax.retarget import Folders, Retargeter
from lorax.safefile import open_tensors, write_safetensors
from tests.families import Family, random_lora, two_levels

NORM = LayerId(Component.UNET, "mid_block.attentions.0.norm")
SCALE = LayerId(Component.UNET, "up_blocks.1.resnets.2.norm1")
BIAS = LayerId(Component.UNET, "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0")
ALONE = LayerId(Component.UNET, "up_blocks.1.resnets.2.conv1")
TEXT = LayerId(Component.TE1, "text_model.encoder.layers.0.layer_norm1")
BARE = LayerId(Component.UNET, "mid_block.attentions.0.transformer_blocks.0.attn1.to_q")

Carry = Callable[[Path, Path], Carried]


@pytest.fixture
def carry(tmp_path: Path) -> Carry:
    def carried(adapter: Path, base: Path, source: Path | None = None) -> Carried:
        bases = [KnownBase(b) for b in (source, base) if b]
        service = Retargeter(Folders((adapter.parent,), tmp_path / "cache"), lambda: bases)
        return service.carry(Wish(adapter.stem, source=source.stem if source else None), bases[-1], RetargetOptions())

    return carried


def offsets_for(family: Family) -> dict[LayerId, Offset]:
    """One of each kind, of the right widths."""
    with open_checkpoint(family["source"]) as base:
        width = {i: base.layers[i].out_features for i in (NORM, SCALE, BIAS, ALONE, TEXT, BARE)}
    numbers = {i: torch.linspace(-1, 1, n) for i, n in width.items()}
    return {
        NORM: Offset(numbers[NORM], 2 * numbers[NORM]),
        SCALE: Offset(numbers[SCALE]),
        BIAS: Offset(bias=numbers[BIAS]),
        ALONE: Offset(bias=numbers[ALONE]),
        TEXT: Offset(numbers[TEXT], numbers[TEXT]),
        BARE: Offset(bias=numbers[BARE]),
    }


def write_offsets(folder: Path, family: Family, wanted: Callable[[LayerSpec], bool]) -> Path:
    path = folder / "adapters" / "offset.safetensors"
    path.parent.mkdir()
    modules, shapes = random_lora(family, wanted=wanted)
    write_adapter(path, modules, family.arch, shapes=shapes, offsets=offsets_for(family), dtype=torch.float32, metadata={})
    return path


def test_biases_and_norms_come_along(tmp_path: Path, sd1: Family, carry: Carry) -> None:
    adapter = write_offsets(tmp_path, sd1, lambda s: s.kind == LayerKind.LINEAR and s.unit.kind == "transformer")
    done, given = carry(adapter, sd1["fine"], sd1["source"]), offsets_for(sd1)
    with open_tensors(done.path) as file:
        names = set(file.tensors)
    made = read_adapter(done.path)
    assert made.offsets.keys() == {NORM, SCALE, BIAS, ALONE}
    for layer, offset in made.offsets.items():
        expected = given[layer]
        assert offset.bias is not None
        torch.testing.assert_close(offset.bias, torch.zeros_like(offset.bias) if expected.bias is None else expected.bias)
        assert expected.weight is None or torch.equal(offset.weight, expected.weight)
    assert not made.modules[ALONE].delta().any(), "hosts look for a bias beside factors"
    assert {n for n in names if "norm" in n.rpartition(".")[2]} == {
        f"lora_unet_{at}.{leaf}" for at in ("middle_block_1_norm", "output_blocks_5_0_in_layers_0") for leaf in ("w_norm", "b_norm")
    }
    assert "2 of its biases and norms are left out" in done.note
    assert "norms of text encoders" in done.note


@pytest.mark.parametrize("resnets", [True, False])
def test_offsets_follow_their_blocks(tmp_path: Path, sd1: Family, carry: Carry, resnets: bool) -> None:
    """The pruned base's second residual block of a level descends from the source's third; blocks are matched where factors lie."""
    kinds = ("transformer", "attention", *(["resnet"] if resnets else []))
    adapter = write_offsets(tmp_path, sd1, lambda s: s.kind in (LayerKind.LINEAR, LayerKind.CONV) and s.unit.kind in kinds)
    done = carry(adapter, sd1["pruned"], sd1["source"])
    blocks = {source: target for target, source in block_map(sd1.arch, by_name("bk-sdm-base")).items()}
    assert blocks["up_blocks.1.resnets.2"] == "up_blocks.1.resnets.1"
    moved = {
        LayerId(i.component, i.path.replace("resnets.2", "resnets.1")) for i in ((NORM, BIAS, SCALE, ALONE) if resnets else (NORM, BIAS))
    }
    assert read_adapter(done.path, by_name("bk-sdm-base")).offsets.keys() == moved
    assert f"{2 if resnets else 4} of its biases and norms are left out" in done.note


def test_a_base_of_its_own_layout_takes_all_that_was_made_for_it(tmp_path: Path, carry: Carry) -> None:
    """No known architecture has these blocks; a source is not told."""
    arch = two_levels()
    write_safetensors(tmp_path / "base.safetensors", sample_checkpoint(arch, widths=TINY), {})
    with open_checkpoint(tmp_path / "base.safetensors") as base:
        assert base.arch == arch
        shapes = {i: layer.shape for i, layer in base.layers.items() if layer.spec.kind == LayerKind.LINEAR and "transformer" in i.path}
    modules = {i: Factors(torch.ones(s[0], 1), torch.ones(1, s[1])) for i, s in shapes.items()}
    path = tmp_path / "adapters" / "made-for-it.safetensors"
    path.parent.mkdir()
    write_adapter(path, modules, arch, shapes=shapes, metadata={})
    done = carry(path, tmp_path / "base.safetensors")
    assert read_adapter(done.path, arch).modules.keys() == modules.keys()
    assert f"{len(modules)} of {len(modules)} layers" in done.summary
    assert "not used" not in done.note


def test_what_the_file_has_beyond_is_said(tmp_path: Path, sd1: Family, carry: Carry) -> None:
    modules, shapes = random_lora(sd1)
    path = tmp_path / "adapters" / "more.safetensors"
    path.parent.mkdir()
    write_adapter(path, modules, sd1.arch, shapes=shapes, metadata={})
    with open_tensors(path) as file:
        tensors = {n: file.read(n).clone() for n in file.tensors}
    write_safetensors(path, {**tensors, "bundle_emb.word.string_to_param.*": torch.ones(1, 8)}, {}, overwrite=True)
    note = carry(path, sd1["fine"], sd1["source"]).note
    assert note.startswith("more: 1 tensors of its file are not used (bundle_emb.word")
    assert "\n" not in note
