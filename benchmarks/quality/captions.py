"""The text side that all models share: a tokenizer of whole words, and small CLIP text encoders with frozen random weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.quality.pictures import CAPTIONS, COLOURS, PLACES, SHAPES
from lorax import write_text

LENGTH = 6
"""Tokens of a caption: start, three words, end, and one of padding."""
WIDTH1, WIDTH2 = 48, 48
LAYERS = 2
_MARKS = ("<|startoftext|>", "<|endoftext|>")


@dataclass(frozen=True, eq=False)
class Texts:
    """All captions as a UNet reads them; the last one is empty."""

    states: Tensor
    """[97, LENGTH, width]"""
    pooled: Tensor | None
    """[97, WIDTH2], SDXL only"""

    def take(self, caption: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.states[caption], None if self.pooled is None else self.pooled[caption]


EMPTY = len(CAPTIONS)


def make_tokenizer(folder: Path) -> Any:
    """CLIP's tokenizer that knows the captions' words as single tokens."""
    from transformers import CLIPTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = folder / "vocab.json"
    words = [*_MARKS, *(chr(c) for c in range(97, 123)), *(f"{chr(c)}</w>" for c in range(97, 123))]
    if not vocabulary.exists():  # runs side by side share the folder
        write_text(folder / "merges.txt", "#version: 0.2\n", overwrite=True)
        write_text(vocabulary, json.dumps({word: i for i, word in enumerate(words)}), overwrite=True)
    made = CLIPTokenizer(
        str(vocabulary),
        str(folder / "merges.txt"),
        bos_token=_MARKS[0],
        eos_token=_MARKS[1],
        unk_token=_MARKS[1],
        pad_token=_MARKS[1],
        model_max_length=LENGTH,
    )
    made.add_tokens([*COLOURS, *SHAPES, *PLACES])
    return made


def make_encoders(vocabulary: int, xl: bool) -> list[Any]:
    """CLIP text encoders of genuine layout; what captions mean is learned by the UNets' cross-attention."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(1234)
    made: list[Any] = []
    for width, kind, act in ((WIDTH1, CLIPTextModel, "quick_gelu"), (WIDTH2, CLIPTextModelWithProjection, "gelu"))[: 1 + xl]:
        config = CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=4 * width,
            projection_dim=width,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            hidden_act=act,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
            initializer_factor=1.0 if xl else 4.0,
        )
        made.append(kind(config).eval().requires_grad_(False))
    return made


@torch.no_grad()
def encode(tokenizer: Any, encoders: list[Any]) -> Texts:
    """All captions and the empty one, as diffusers' pipelines encode them."""
    ids = tokenizer([*CAPTIONS, ""], padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt").input_ids
    if len(encoders) == 1:
        return Texts(encoders[0](ids)[0], None)
    outs = [encoder(ids, output_hidden_states=True) for encoder in encoders]
    return Texts(torch.cat([out.hidden_states[-2] for out in outs], -1), outs[1].text_embeds)
