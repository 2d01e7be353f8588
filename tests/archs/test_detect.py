"""Exactly one architecture claims a UNet; prunings that nobody named keep their family."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lorax.archs import ARCHS, FAMILIES, by_name, detect, family_parent
from lorax.errors import MalformedCheckpoint, UnknownFormat
from lorax.structure import Arch, parse_unet
from lorax.structure.blocks import down_stage


@pytest.mark.parametrize("arch", ARCHS, ids=lambda arch: arch.name)
def test_exactly_one_architecture_claims_a_unet(arch: Arch) -> None:
    assert arch.unet is not None
    alike = [other.name for other in ARCHS if other.unet is not None and replace(other.unet, strided=arch.unet.strided) == arch.unet]
    assert alike == [arch.name]
    assert detect(arch.unet, arch.text) == arch


def test_families_and_their_parents() -> None:
    assert FAMILIES == ("sd1", "sd2", "sdxl")
    assert [family_parent(family).name for family in FAMILIES] == ["sd1", "sd2", "sdxl"]
    blocks = {arch.name: arch.unet.transformer_blocks for arch in ARCHS if arch.unet}
    assert blocks["sdxl"] == 70
    assert (blocks["ssd-1b"], blocks["vega"], blocks["koala-700m"], blocks["koala-1b"]) == (34, 15, 21, 30)


@pytest.mark.parametrize("parent", ["sd1", "sd2", "sdxl"])
def test_an_unknown_pruning_is_custom_of_its_family(parent: str) -> None:
    arch = by_name(parent)
    assert arch.unet is not None
    level = down_stage(*[7] * len(arch.unet.down[1].depths), widens=True)
    unet = replace(arch.unet, down=(arch.unet.down[0], level, *arch.unet.down[2:]))
    custom = detect(unet, arch.text)
    assert (custom.name, custom.family, custom.text) == (f"{parent}-custom", parent, arch.text)
    names = {
        s.single_file.module + ".weight": (1, 1) if "proj" in s.role else (1,) for s in custom.layers() if not s.id.path.startswith("text")
    }
    if arch.unet.linear_projection:
        assert parse_unet(names) == (unet, "single_file")


def test_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(UnknownFormat, match=r"no architecture is called 'ssd-2b'.*Did you mean 'ssd-1b'"):
        by_name("ssd-2b")


def test_a_level_without_residual_blocks_is_an_error() -> None:
    shapes = {f"{s.single_file.module}.weight": (1,) for s in by_name("sd1").layers()}
    cut = {name: shape for name, shape in shapes.items() if not name.startswith(("input_blocks.4.", "input_blocks.5."))}
    with pytest.raises(MalformedCheckpoint, match="a UNet level without residual blocks"):
        parse_unet(cut)
