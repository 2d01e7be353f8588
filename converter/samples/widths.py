"""Narrow widths for a real architecture: the shape of each of its layers, and the configurations that diffusers takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lorax import Arch, Component, LayerId, LayerKind, LayerSpec, UNetStructure, diffusers_blocks


@dataclass(frozen=True)
class Widths:
    """Sizes of a narrow model. The real ones are 320, 640, 1280, 1280 channels, text widths 768 to 1280, 32 groups."""

    channels: tuple[int, ...] = (32, 64, 128, 128)
    """One per level; the levels of an architecture with fewer are the first ones."""
    groups: int = 32
    """Of the UNet's GroupNorms; divides every channel count."""
    text1: int = 24
    text2: int = 32
    heads: int = 2
    """Attention heads at the first level and in the text encoders; more channels, more heads."""
    vocabulary: int = 96
    in_channels: int = 4
    size_embedding: int = 8
    """SDXL's embedding of each of its six size numbers; 256 in the real one."""

    def text(self, family: str, component: Component) -> int:
        """Width of a text encoder: SD2's only one is OpenCLIP."""
        return self.text2 if family == "sd2" or component == Component.TE2 else self.text1

    def context(self, family: str) -> int:
        """Width of what cross-attention reads: SDXL concatenates both encoders."""
        return {"sd1": self.text1, "sd2": self.text2, "sdxl": self.text1 + self.text2}[family]


SMALL = Widths()
TINY = Widths(channels=(8, 16, 24, 24), groups=8, text1=8, text2=12, vocabulary=16)

Shape = tuple[int, ...]


def unet_shapes(unet: UNetStructure, family: str, widths: Widths) -> dict[str, Shape]:
    """Weight shape of every UNet layer by its diffusers path."""
    channels = widths.channels[: len(unet.down)]
    first, time = channels[0], 4 * channels[0]
    shapes: dict[str, Shape] = {
        "conv_in": (first, widths.in_channels, 3, 3),
        "time_embedding.linear_1": (time, first),
        "time_embedding.linear_2": (time, time),
        "add_embedding.linear_1": (time, 6 * widths.size_embedding + widths.text2),
        "add_embedding.linear_2": (time, time),
        "conv_norm_out": (first,),
        "conv_out": (4, first, 3, 3),
    }
    for path, inputs, outputs in _resnets(unet, channels):
        shapes |= {f"{path}.{role}": shape for role, shape in _resnet(inputs, outputs, time).items()}
        attention = path.replace("resnets", "attentions")
        for role, shape in _attention(outputs, widths.context(family), unet.linear_projection).items():
            shapes[f"{attention}.{role}"] = shape
    for side, samplers, order in (("down", "downsamplers", channels), ("up", "upsamplers", channels[::-1])):
        for level, width in enumerate(order):
            shapes[f"{side}_blocks.{level}.{samplers}.0.conv"] = (width, width, 3, 3)
    return shapes


def _resnets(unet: UNetStructure, channels: tuple[int, ...]) -> Iterator[tuple[str, int, int]]:
    """(path, input width, output width) in order of execution; the up path takes the down path's outputs back as skips."""
    now, skips = channels[0], [channels[0]]
    for level, stage in enumerate(unet.down):
        for i in range(len(stage.depths)):
            yield f"down_blocks.{level}.resnets.{i}", now, channels[level]
            now = channels[level]
            skips.append(now)
        if stage.sampler:
            skips.append(now)
    for i in range(unet.mid_resnets):
        yield f"mid_block.resnets.{i}", now, now
    for level, stage in enumerate(unet.up):
        for i in range(len(stage.depths)):
            yield f"up_blocks.{level}.resnets.{i}", now + skips.pop(), channels[-1 - level]
            now = channels[-1 - level]


def _resnet(inputs: int, outputs: int, time: int) -> dict[str, Shape]:
    return {
        "norm1": (inputs,),
        "conv1": (outputs, inputs, 3, 3),
        "time_emb_proj": (outputs, time),
        "norm2": (outputs,),
        "conv2": (outputs, outputs, 3, 3),
        "conv_shortcut": (outputs, inputs, 1, 1),
    }


def _attention(width: int, context: int, linear: bool) -> dict[str, Shape]:
    """Shapes by role; a transformer block's roles stand for all blocks of the attention."""
    projection = (width, width) if linear else (width, width, 1, 1)
    square, cross = (width, width), (width, context)
    block: dict[str, Shape] = {"norm1": (width,), "norm2": (width,), "norm3": (width,)}
    for attn, keys in (("attn1", square), ("attn2", cross)):
        block |= {f"{attn}.to_q": square, f"{attn}.to_k": keys, f"{attn}.to_v": keys, f"{attn}.to_out.0": square}
    block |= {"ff.net.0.proj": (8 * width, width), "ff.net.2": (width, 4 * width)}
    shapes: dict[str, Shape] = {"norm": (width,), "proj_in": projection, "proj_out": projection}
    return shapes | {f"*.{role}": shape for role, shape in block.items()}


def text_shape(role: str, width: int, vocabulary: int) -> Shape:
    """Weight shape of a text encoder's layer by the end of its path."""
    ends: dict[str, Shape] = {
        "token_embedding": (vocabulary, width),
        "position_embedding": (77, width),
        "fc1": (4 * width, width),
        "fc2": (width, 4 * width),
    }
    return ends.get(role.rsplit(".", 1)[-1], (width,) if "norm" in role else (width, width))


def layer_shapes(arch: Arch, widths: Widths) -> dict[LayerId, Shape]:
    """Weight shape of every layer of the architecture at these widths."""
    unet = unet_shapes(arch.unet, arch.family, widths) if arch.unet else {}
    return {spec.id: _shape(spec, arch, widths, unet) for spec in arch.layers()}


def _shape(spec: LayerSpec, arch: Arch, widths: Widths, unet: dict[str, Shape]) -> Shape:
    if spec.id.component != Component.UNET:
        return text_shape(spec.role, widths.text(arch.family, spec.id.component), widths.vocabulary)
    if spec.unit.kind == "transformer":
        return unet[f"{spec.unit.path.split('.transformer_blocks')[0]}.*.{spec.role}"]
    return unet[spec.id.path]


def has_bias(spec: LayerSpec) -> bool:
    """Attention inputs of the UNet have no bias, nor have embeddings."""
    bare = spec.id.component == Component.UNET and spec.role.endswith(("to_q", "to_k", "to_v"))
    return spec.kind != LayerKind.EMBEDDING and not bare


def diffusers_config(arch: Arch, widths: Widths) -> dict[str, Any]:
    """Arguments of diffusers' UNet2DConditionModel for this architecture at these widths."""
    unet = arch.unet
    if unet is None:
        raise ValueError(f"{arch.title} has no UNet")
    channels = widths.channels[: len(unet.down)]
    config = diffusers_blocks(unet) | {
        "sample_size": 16,
        "in_channels": widths.in_channels,
        "block_out_channels": list(channels),
        "norm_num_groups": widths.groups,
        "cross_attention_dim": widths.context(arch.family),
        "attention_head_dim": [max(1, widths.heads * c // channels[0]) for c in channels],
    }
    if unet.added_embedding:
        pooled = 6 * widths.size_embedding + widths.text2
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": widths.size_embedding,
            "projection_class_embeddings_input_dim": pooled,
        }
    return config


def text_config(arch: Arch, component: Component, widths: Widths) -> dict[str, Any]:
    """Arguments of transformers' CLIPTextConfig for a text encoder of this architecture at these widths."""
    width, structure = widths.text(arch.family, component), dict(arch.text)[component]
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "projection_dim": width,
        "num_hidden_layers": structure.layers,
        "num_attention_heads": widths.heads,
        "vocab_size": widths.vocabulary,
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu" if structure.kind == "clip" else "gelu",
        "bos_token_id": widths.vocabulary - 2,
        "eos_token_id": widths.vocabulary - 1,
        "pad_token_id": widths.vocabulary - 1,
    }
