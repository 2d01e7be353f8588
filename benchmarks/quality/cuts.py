"""Smaller models cut out of a trained one: by whole blocks, or by three quarters of every width with the norm groups kept."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.quality.shapes import Shape, make_unet

CELL = 4
"""Channels of the smallest run that lies inside one GroupNorm group everywhere, concatenated inputs included."""
KEEP = 3

_XL_KEPT = {"down_blocks.1.attentions.0": (0, 2), "down_blocks.1.attentions.1": (0, 2), "up_blocks.0.attentions.0": (0, 2)}
_XL_KEPT["up_blocks.0.attentions.1"] = (0, 2)
"""Which transformer blocks of three are left; the last attention keeps all, as in SSD-1B."""


def true_block(shape: Shape, path: str) -> str:
    """Where a tensor of the block-pruned model comes from in the source: the map that a transfer has to find."""
    if shape.xl:
        found = re.match(r"(.*attentions\.\d)\.transformer_blocks\.(\d)\.(.*)", path)
        if found and found[1] in _XL_KEPT:
            return f"{found[1]}.transformer_blocks.{_XL_KEPT[found[1]][int(found[2])]}.{found[3]}"
        return path
    return re.sub(r"^(up_blocks\.\d\.(?:resnets|attentions))\.1\.", r"\1.2.", path)


def cut_blocks(source: Any, shape: Shape) -> Any:
    """The block-pruned model with the source's weights."""
    pruned, state = make_unet(shape, 0), source.state_dict()
    pruned.load_state_dict({name: state[true_block(shape, name)] for name in pruned.state_dict()})
    return pruned


def cut_width(source: Any, shape: Shape) -> tuple[Any, dict[str, Tensor]]:
    """The narrow model of the strongest channels, and which channels are left at the end of each block."""
    cut = _WidthCut(source, make_unet(shape, 0))
    return cut.run(), cut.ends


class _WidthCut:
    """Walks through the source in order of execution and takes, of each layer, the channels that are left on either side."""

    def __init__(self, source: Any, target: Any) -> None:
        self.source, self.target = source, target
        self.old: dict[str, Tensor] = source.state_dict()
        self.new: dict[str, Tensor] = {}
        self.ends: dict[str, Tensor] = {}

    def run(self) -> Any:
        h = self.entry()
        skips = [h]
        h = self.down(h, skips)
        h = self.middle(h)
        h = self.up(h, skips)
        self.put("conv_norm_out", h)
        self.put("conv_out", None, h)
        self.target.load_state_dict(self.new)
        return self.target

    def entry(self) -> Tensor:
        """The first convolution and the embedding of the timestep."""
        h, inner = self.best(self.down_writers(0)), self.best(["time_embedding.linear_1"])
        self.time = self.best(["time_embedding.linear_2"])
        self.put("conv_in", h)
        self.put("time_embedding.linear_1", inner)
        self.new["time_embedding.linear_1.weight"] = self.new["time_embedding.linear_1.weight"] @ self.sinusoids().T
        self.put("time_embedding.linear_2", self.time, inner)
        return h

    def down(self, h: Tensor, skips: list[Tensor]) -> Tensor:
        for level, block in enumerate(self.source.down_blocks):
            path, here = f"down_blocks.{level}", h if level == 0 else self.best(self.down_writers(level))
            for i in range(len(block.resnets)):
                self.resnet(f"{path}.resnets.{i}", h, here)
                h = here
                self.attention(f"{path}.attentions.{i}", h)
                skips.append(h)
            if block.downsamplers:
                h = self.through(f"{path}.downsamplers.0.conv", h)
                skips.append(h)
            self.ends[path] = h
        return h

    def middle(self, h: Tensor) -> Tensor:
        """The stream of the innermost level goes on through it."""
        self.resnet("mid_block.resnets.0", h, h)
        self.attention("mid_block.attentions.0", h)
        self.resnet("mid_block.resnets.1", h, h)
        self.ends["mid_block"] = h
        return h

    def up(self, h: Tensor, skips: list[Tensor]) -> Tensor:
        for level, block in enumerate(self.source.up_blocks):
            path = f"up_blocks.{level}"
            for i in range(len(block.resnets)):
                name, skip = f"{path}.resnets.{i}", skips.pop()
                behind = self.old[f"{name}.norm1.weight"].shape[0] - len(skip) * CELL // KEEP
                out = self.best([f"{name}.conv2", f"{name}.conv_shortcut", f"{path}.attentions.{i}.proj_out"])
                self.resnet(name, torch.cat([h, skip + behind]), out)
                h = out
                self.attention(f"{path}.attentions.{i}", h)
            if block.upsamplers:
                h = self.through(f"{path}.upsamplers.0.conv", h)
            self.ends[path] = h
        return h

    def down_writers(self, level: int) -> list[str]:
        """All that adds to the stream of a level; the innermost goes on through the middle block."""
        paths = [f"down_blocks.{level}"]
        writers = ["conv_in"] if level == 0 else []
        if level == len(self.source.down_blocks) - 1:
            paths.append("mid_block")
        ends = (".conv2", ".conv_shortcut", ".proj_out")
        return writers + [n for p in paths for n in self.modules(p) if n.endswith(ends)]

    def modules(self, path: str) -> Iterator[str]:
        return (n.removesuffix(".weight") for n in self.old if n.startswith(f"{path}.") and n.endswith(".weight"))

    def best(self, writers: list[str]) -> Tensor:
        """The strongest three of every four channels, by the norm of the rows that write them."""
        rows = [self.old[f"{w}.weight"].flatten(1).norm(dim=1) for w in writers if f"{w}.weight" in self.old]
        return _cells(torch.stack(rows).sum(0))

    def through(self, name: str, h: Tensor) -> Tensor:
        out = self.best([name])
        self.put(name, out, h)
        return out

    def resnet(self, path: str, inputs: Tensor, out: Tensor) -> None:
        writes, reads = self.old[f"{path}.conv1.weight"], self.old[f"{path}.conv2.weight"]
        hidden = _cells(writes.flatten(1).norm(dim=1) * reads.transpose(0, 1).flatten(1).norm(dim=1))
        self.put(f"{path}.norm1", inputs)
        self.put(f"{path}.conv1", hidden, inputs)
        self.put(f"{path}.time_emb_proj", hidden, self.time)
        self.put(f"{path}.norm2", hidden)
        self.put(f"{path}.conv2", out, hidden)
        if f"{path}.conv_shortcut.weight" in self.old:
            self.put(f"{path}.conv_shortcut", out, inputs)

    def attention(self, path: str, h: Tensor) -> None:
        if f"{path}.norm.weight" not in self.old:
            return
        writes, reads = self.old[f"{path}.proj_in.weight"].flatten(1), self.old[f"{path}.proj_out.weight"].flatten(1)
        inner = _cells(writes.norm(dim=1) + reads.norm(dim=0))
        self.put(f"{path}.norm", h)
        self.put(f"{path}.proj_in", inner, h)
        self.put(f"{path}.proj_out", h, inner)
        for block in sorted({n.split(".norm1.")[0] for n in self.old if n.startswith(f"{path}.transformer_blocks.") and ".norm1." in n}):
            self.transformer(block, inner)

    def transformer(self, path: str, inner: Tensor) -> None:
        for norm in ("norm1", "norm2", "norm3"):
            self.put(f"{path}.{norm}", inner)
        for attn in ("attn1", "attn2"):
            rows = self.head_rows(f"{path}.{attn}")
            keys = inner if attn == "attn1" else None
            self.put(f"{path}.{attn}.to_q", rows, inner)
            self.put(f"{path}.{attn}.to_k", rows, keys)
            self.put(f"{path}.{attn}.to_v", rows, keys)
            self.put(f"{path}.{attn}.to_out.0", inner, rows)
        proj, back = self.old[f"{path}.ff.net.0.proj.weight"], self.old[f"{path}.ff.net.2.weight"]
        half = back.shape[1]
        score = proj[:half].norm(dim=1) * proj[half:].norm(dim=1) * back.norm(dim=0)
        hidden = score.topk(half * KEEP // CELL).indices.sort().values
        self.put(f"{path}.ff.net.0.proj", torch.cat([hidden, hidden + half]), inner)
        self.put(f"{path}.ff.net.2", inner, hidden)

    def head_rows(self, path: str) -> Tensor:
        """Rows of the strongest three quarters of the heads."""
        value, out = self.old[f"{path}.to_v.weight"], self.old[f"{path}.to_out.0.weight"]
        size = self.source.get_submodule(path).to_q.out_features // self.source.get_submodule(path).heads
        score = (value.norm(dim=1) * out.norm(dim=0)).view(-1, size).sum(1)
        heads = score.topk(len(score) * KEEP // CELL).indices.sort().values
        return (heads[:, None] * size + torch.arange(size)).flatten()

    def sinusoids(self) -> Tensor:
        """The source's sinusoids of the timestep in terms of the target's fewer ones, by least squares over all timesteps."""
        times = torch.linspace(0, 1000, 2001)
        mine, theirs = self.target.time_proj(times).double(), self.source.time_proj(times).double()
        return torch.linalg.lstsq(mine, theirs, rcond=1e-6, driver="gelsd").solution.float()

    def put(self, name: str, rows: Tensor | None = None, columns: Tensor | None = None) -> None:
        """Take rows and input channels of a layer, and its bias."""
        weight = self.old[f"{name}.weight"]
        weight = weight if rows is None else weight[rows]
        self.new[f"{name}.weight"] = (weight if columns is None else weight[:, columns]).clone()
        bias = self.old.get(f"{name}.bias")
        if bias is not None:
            self.new[f"{name}.bias"] = (bias if rows is None else bias[rows]).clone()


def _cells(score: Tensor) -> Tensor:
    """Indices of the `KEEP` largest of every `CELL` consecutive values, ascending."""
    chosen = score.view(-1, CELL).topk(KEEP, 1).indices.sort(1).values
    return (chosen + torch.arange(len(chosen))[:, None] * CELL).flatten()
