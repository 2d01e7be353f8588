"""Generated pictures with a visible style, and a tokenizer small enough to write."""

from __future__ import annotations

import json
import math
from pathlib import Path

VOCABULARY = 514
"""256 bytes, each inside and at the end of a word, and two marks."""


def write_pictures(folder: Path, count: int = 4, size: int = 64, captions: bool = True) -> Path:
    """Diagonal red and yellow stripes, each picture with its own phase."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        picture = Image.new("RGB", (size, size))
        for x in range(size):
            for y in range(size):
                wave = 0.5 + 0.5 * math.sin(2 * math.pi * (x + y) / 16 + i)
                picture.putpixel((x, y), (230, int(40 + 180 * wave), 20))
        picture.save(folder / f"{i}.png")
        if captions:
            (folder / f"{i}.txt").write_text("red and yellow stripes", encoding="utf-8")
    return folder


def write_tokenizer(folder: Path) -> Path:
    """CLIP's byte-level tokenizer without merges."""
    folder.mkdir(parents=True, exist_ok=True)
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [b for b in range(256) if b not in printable]
    letters = [chr(b) for b in printable] + [chr(256 + i) for i in range(len(rest))]
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    marks = {"bos_token": words[-2], "eos_token": words[-1], "unk_token": words[-1], "pad_token": words[-1]}
    config = {**marks, "tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True, "errors": "replace"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(marks), encoding="utf-8")
    return folder
