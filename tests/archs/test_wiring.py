"""The channel spaces that architectures declare: every layer lies between some, and their widths fit the real shapes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from converter.samples import Widths
from converter.samples.widths import layer_shapes
from lorax.archs import ARCHS, by_name
from lorax.errors import UnknownFormat
from lorax.layers import ChannelSpace, Component, LayerId, LayerKind
from lorax.structure import Arch

WIDTHS = Widths(channels=(16, 32, 48, 48), groups=4, text1=12, text2=20, vocabulary=33)


@pytest.mark.parametrize("arch", ARCHS, ids=lambda a: a.name)
@pytest.mark.parametrize("context", [True, False])
def test_every_layer_but_norms_lies_between_spaces_of_its_widths(arch: Arch, context: bool):
    wiring, shapes = arch.wiring(context), layer_shapes(arch, WIDTHS)
    assert wiring.keys() == {spec.id for spec in arch.layers() if spec.kind != LayerKind.NORM}
    sizes: dict[ChannelSpace, int] = {}
    for spec in arch.layers():
        if spec.id in wiring:
            out = shapes[spec.id][spec.kind == LayerKind.EMBEDDING]
            space = wiring[spec.id].out
            assert sizes.setdefault(space, out // (2 if space.kind == "gated" else 1)) * (2 if sides_are_halves(spec.role) else 1) == out
    for spec in arch.layers():
        if spec.id in wiring and spec.kind != LayerKind.EMBEDDING:
            inputs = wiring[spec.id].inputs
            if all(s in sizes for s in inputs):
                assert sum(sizes[s] for s in inputs) == shapes[spec.id][1], spec.id
            else:
                assert [s.kind in ("fixed", "timestep") for s in inputs] == [True], spec.id


def sides_are_halves(role: str) -> bool:
    return role == "ff.net.0.proj"


def test_the_up_path_reads_the_skips_of_the_down_path():
    wiring = by_name("sd1").wiring()
    last = wiring[LayerId(Component.UNET, "up_blocks.3.resnets.2.conv1")].inputs
    assert [s.name for s in last] == ["up_blocks.3.resnets.1", "conv_in"]
    first = wiring[LayerId(Component.UNET, "up_blocks.0.resnets.0.conv1")].inputs
    assert [s.name for s in first] == ["down_blocks.2.downsamplers.0", "down_blocks.2.downsamplers.0"]


def test_a_unet_with_more_skips_read_than_left_is_refused():
    sd1 = by_name("sd1")
    assert sd1.unet is not None
    torn = replace(sd1, unet=replace(sd1.unet, down=sd1.unet.down[2:]))
    with pytest.raises(UnknownFormat, match="skips"):
        torn.wiring()
