"""Between which channel spaces each layer lies: the wiring that alignment of two models follows.

An identity shortcut continues a residual stream; every ``conv_shortcut``, downsampler and upsampler starts a new one. The down
path's outputs wait on a stack, and the up path's residual blocks read them beside their own stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lorax.errors import UnknownFormat
from lorax.layers import ChannelSpace, Component, LayerId, Sides, SpaceKind
from lorax.structure.blocks import Stage, TextStructure, UNetStructure

Wiring = Mapping[LayerId, Sides]


def text_stream(component: Component) -> ChannelSpace:
    """The residual stream of a text encoder, which the UNet's cross-attention reads."""
    return ChannelSpace(component, "stream", "channels")


def text_wiring(component: Component, structure: TextStructure) -> dict[LayerId, Sides]:
    """The text encoder's layers. An embedding [rows, width] is taken as a weight [width, rows]."""

    def space(name: str, kind: SpaceKind) -> ChannelSpace:
        return ChannelSpace(component, name, kind)

    stream = text_stream(component)
    found: dict[str, Sides] = {
        f"text_model.embeddings.{name}_embedding": Sides(stream, (space(name, "fixed"),)) for name in ("token", "position")
    }
    for i in range(structure.layers):
        at = f"text_model.encoder.layers.{i}"
        queries, values = space(f"{at}.queries", "heads"), space(f"{at}.values", "heads")
        hidden = space(f"{at}.hidden", "channels")
        found |= {
            f"{at}.self_attn.q_proj": Sides(queries, (stream,)),
            f"{at}.self_attn.k_proj": Sides(queries, (stream,)),
            f"{at}.self_attn.v_proj": Sides(values, (stream,)),
            f"{at}.self_attn.out_proj": Sides(stream, (values,)),
            f"{at}.mlp.fc1": Sides(hidden, (stream,)),
            f"{at}.mlp.fc2": Sides(stream, (hidden,)),
        }
    return {LayerId(component, path): sides for path, sides in found.items()}


def unet_wiring(structure: UNetStructure, text: Sequence[Component]) -> dict[LayerId, Sides]:
    """The UNet's layers; `text`: the text encoders whose streams are its context, none where they are not at hand.

    UnknownFormat where the up path reads more skips than the down path leaves.
    """
    builder = _UNet(tuple(text_stream(c) for c in text) or (_space("context", "fixed"),))
    builder.build(structure)
    return {LayerId(Component.UNET, path): sides for path, sides in builder.found.items()}


def _space(name: str, kind: SpaceKind = "channels") -> ChannelSpace:
    return ChannelSpace(Component.UNET, name, kind)


class _UNet:
    """Walks the blocks in order of execution, with the stream that it is in and the stack of skips."""

    def __init__(self, context: tuple[ChannelSpace, ...]) -> None:
        self.found: dict[str, Sides] = {}
        self.context = context
        self.embedding = _space("embedding")
        self.stream = _space("conv_in")
        self.skips: list[ChannelSpace] = []

    def build(self, structure: UNetStructure) -> None:
        hidden = _space("time_embedding.hidden")
        self.put("time_embedding.linear_1", hidden, _space("timestep", "timestep"))
        self.put("time_embedding.linear_2", self.embedding, hidden)
        if structure.added_embedding:
            added = _space("add_embedding.hidden")
            self.put("add_embedding.linear_1", added, _space("added", "fixed"))
            self.put("add_embedding.linear_2", self.embedding, added)
        self.put("conv_in", self.stream, _space("latent", "fixed"))
        self.skips.append(self.stream)
        for level, stage in enumerate(structure.down):
            self.stage(f"down_blocks.{level}", stage, "downsamplers")
        for i in range(structure.mid_resnets):
            self.resnet(f"mid_block.resnets.{i}", (self.stream,), shortcut=False)
            if i == 0 and structure.mid_depth:
                self.attention("mid_block.attentions.0", structure.mid_depth)
        for level, stage in enumerate(structure.up):
            self.stage(f"up_blocks.{level}", stage, "upsamplers")
        self.put("conv_out", _space("prediction", "fixed"), self.stream)

    def put(self, path: str, out: ChannelSpace, *inputs: ChannelSpace) -> None:
        self.found[path] = Sides(out, inputs)

    def stage(self, at: str, stage: Stage, samplers: str) -> None:
        down = samplers == "downsamplers"
        for i, (depth, shortcut) in enumerate(zip(stage.depths, stage.shortcuts, strict=True)):
            self.resnet(f"{at}.resnets.{i}", (self.stream,) if down else (self.stream, self.skip()), shortcut)
            if depth:
                self.attention(f"{at}.attentions.{i}", depth)
            if down:
                self.skips.append(self.stream)
        if stage.sampler:
            path = f"{at}.{samplers}.0"
            before, self.stream = self.stream, _space(path)
            self.put(f"{path}.conv", self.stream, before)
            if down:
                self.skips.append(self.stream)

    def skip(self) -> ChannelSpace:
        if not self.skips:
            raise UnknownFormat("the UNet's up path reads more skips than its down path leaves; the file seems to be incomplete")
        return self.skips.pop()

    def resnet(self, at: str, inputs: tuple[ChannelSpace, ...], shortcut: bool) -> None:
        hidden = _space(f"{at}.hidden")
        self.put(f"{at}.conv1", hidden, *inputs)
        self.put(f"{at}.time_emb_proj", hidden, self.embedding)
        if shortcut:
            self.stream = _space(at)
            self.put(f"{at}.conv_shortcut", self.stream, *inputs)
        self.put(f"{at}.conv2", self.stream, hidden)

    def attention(self, at: str, depth: int) -> None:
        inner = _space(f"{at}.stream")
        self.put(f"{at}.proj_in", inner, self.stream)
        for i in range(depth):
            block = f"{at}.transformer_blocks.{i}"
            for attn, read in (("attn1", (inner,)), ("attn2", self.context)):
                queries, values = _space(f"{block}.{attn}.queries", "heads"), _space(f"{block}.{attn}.values", "heads")
                self.put(f"{block}.{attn}.to_q", queries, inner)
                self.put(f"{block}.{attn}.to_k", queries, *read)
                self.put(f"{block}.{attn}.to_v", values, *read)
                self.put(f"{block}.{attn}.to_out.0", inner, values)
            gated = _space(f"{block}.ff", "gated")
            self.put(f"{block}.ff.net.0.proj", gated, inner)
            self.put(f"{block}.ff.net.2", inner, gated)
        self.put(f"{at}.proj_out", self.stream, inner)
