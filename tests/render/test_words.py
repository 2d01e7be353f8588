"""Numbers and names as people read them."""

from __future__ import annotations

import pytest

from lorax.layers import Component, LayerId
from lorax.render import words
from lorax.render.blockmap import stages
from lorax.render.grid import block_of, block_title, place
from lorax.transfer.types import UnitMatch


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (0.0, "0 %"),
        (0.0004, "< 0.1 %"),
        (0.5, "50.0 %"),
        (0.99996, "99.9 %"),
        (1.0, "100 %"),
        (1.44, "144 %"),
    ],
)
def test_a_share_is_never_rounded_up_to_all(value: float | None, text: str) -> None:
    assert words.share_to_text(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.99, "10 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s")])
def test_duration(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("path", "stage", "label", "column"),
    [
        ("down_blocks.1.attentions.0.transformer_blocks.3.attn1.to_out.0", "down 1", "0·3", "attn1.to_out.0"),
        ("down_blocks.1.attentions.0.proj_in", "down 1", "0", "attentions.proj_in"),
        ("mid_block.resnets.1.conv1", "mid", "1", "resnets.conv1"),
        ("up_blocks.2.upsamplers.0.conv", "up 2", "↑", "samplers.conv"),
        ("conv_in", "in", "conv in", "conv_in"),
        ("text_model.encoder.layers.11.mlp.fc1", "layers", "11", "mlp.fc1"),
    ],
)
def test_place(path: str, stage: str, label: str, column: str) -> None:
    found = place(LayerId(Component.UNET, path))
    assert (found.stage, found.label, found.column) == (stage, label, column)


@pytest.mark.parametrize(
    ("path", "block", "title"),
    [
        (
            "down_blocks.1.attentions.0.transformer_blocks.3.attn1.to_q",
            "unet.down_blocks.1.attentions.0.transformer_blocks.3",
            "down 1 · attention 0 · block 3",
        ),
        ("mid_block.resnets.1.conv1", "unet.mid_block.resnets.1", "mid · resnet 1"),
        ("down_blocks.0.downsamplers.0.conv", "unet.down_blocks.0.downsamplers.0", "down 0 · downsampler"),
        ("conv_in", "unet.conv_in", "U-Net · conv_in"),
    ],
)
def test_block(path: str, block: str, title: str) -> None:
    assert block_of(LayerId(Component.UNET, path)) == block
    assert block_title(block) == title


def test_rows_run_in_the_order_of_execution() -> None:
    paths = (
        "conv_in",
        "down_blocks.0.resnets.0.conv1",
        "down_blocks.1.attentions.0.transformer_blocks.2.attn1.to_q",
        "down_blocks.1.attentions.0.transformer_blocks.10.attn1.to_q",
        "down_blocks.1.downsamplers.0.conv",
        "mid_block.resnets.0.conv1",
        "up_blocks.0.resnets.0.conv1",
        "conv_out",
    )
    places = [place(LayerId(Component.UNET, p)) for p in paths]
    assert places == sorted(places)


def test_stages_of_a_block_map() -> None:
    def block(n: int) -> str:
        return f"unet.down_blocks.2.attentions.0.transformer_blocks.{n}"

    units = (
        UnitMatch(block(0), block(1), 0.9),
        UnitMatch(block(1), None, None),
        UnitMatch("unet.mid_block.resnets.0", "unet.mid_block.resnets.0", 1.0),
    )
    pruned, same = stages(units, lost=(block(0),))
    assert (pruned.title, pruned.kind, pruned.source, pruned.target) == (
        "down 2",
        "transformer block",
        (block(0), block(1)),
        (block(0), block(1)),
    )
    assert pruned.ties == ((block(1), block(0), 0.9),)
    assert not pruned.plain
    assert same.plain


def test_a_block_that_moved_to_another_stage_is_not_called_lost() -> None:
    unit = UnitMatch("unet.up_blocks.1.resnets.0", "unet.up_blocks.0.resnets.2", 0.9)
    found = stages((unit,))
    assert [s.crossing for s in found] == [((unit.source, unit.target),)] * 2
    assert not any(s.plain for s in found)
