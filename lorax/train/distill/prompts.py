"""What the models are asked to draw: the user's own prompts, or some made from a list of words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lorax.adapter import Adapter
from lorax.errors import FileError

MEDIA = ("a photo of", "a painting of", "a drawing of", "a close-up of", "an illustration of", "a wide view of", "a portrait of", "")
QUALITIES = ("", "old", "small", "colourful", "quiet", "wooden", "bright", "dark", "young", "huge", "simple", "elegant")
SUBJECTS = (
    "woman", "man", "child", "cat", "dog", "horse", "bird", "fish", "house", "castle", "bridge", "city street", "village", "car",
    "bicycle", "ship", "train", "tree", "flower", "mountain", "river", "beach", "forest", "garden", "cup on a table", "bowl of fruit",
    "chair", "lamp", "book", "robot", "knight", "dancer",
)  # fmt: skip
PLACES = ("", "in the rain", "at night", "in the snow", "at sunset", "in a room", "by the sea", "under a blue sky", "in the fog")
COMMON_TAG = 0.5
"""A tag in this share of the captions that an adapter was trained on is taken for a trigger word."""


def read_prompts(path: Path) -> list[str]:
    """One prompt a line; empty lines and lines that begin with ``#`` are left out. FileError where none is left."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"the prompts '{path}' cannot be read as UTF-8 text ({type(error).__name__}): one prompt a line.") from None
    found = [" ".join(line.split()) for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not found:
        raise FileError(f"'{path}' holds no prompt: write one a line.")
    return found


def generate_prompts(count: int, seed: int, triggers: Sequence[str] = ()) -> list[str]:
    """Prompts of many subjects, the same for the same seed; every second one begins with the trigger words, where there are any."""
    generator = torch.Generator().manual_seed(seed)

    def pick(words: Sequence[str]) -> str:
        return words[int(torch.randint(len(words), (1,), generator=generator))]

    order = torch.randperm(len(SUBJECTS), generator=generator).tolist()
    found: list[str] = []
    for i in range(count):
        words = (pick(MEDIA), pick(QUALITIES), SUBJECTS[order[i % len(order)]], pick(PLACES))
        prompt = " ".join(word for word in words if word)
        found.append(", ".join([*triggers, prompt]) if triggers and i % 2 == 0 else prompt)
    return found


def trigger_words(adapter: Adapter) -> tuple[str, ...]:
    """What the file says of its trigger words: ModelSpec's phrase, else the tags that most of its captions had."""
    phrase = adapter.metadata.get("modelspec.trigger_phrase", "").strip()
    if phrase:
        return (" ".join(phrase.split()),)
    try:
        folders: Any = json.loads(adapter.metadata.get("ss_tag_frequency", "{}"))
        counts: dict[str, int] = {}
        for tags in folders.values():
            for tag, count in tags.items():
                counts[str(tag).strip()] = counts.get(str(tag).strip(), 0) + int(count)
    except (ValueError, TypeError, AttributeError):
        return ()
    most = max(counts.values(), default=0)
    return tuple(tag for tag, count in sorted(counts.items(), key=lambda item: -item[1]) if tag and count >= COMMON_TAG * most)[:3]
