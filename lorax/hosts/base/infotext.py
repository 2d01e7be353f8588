"""What a picture's infotext says about the adapters in it, and how it is read back."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

HASHES = "LoraX hashes"
PROBLEMS = "LoraX problems"
_TAG = re.compile(r"<lorax:([^:>]+)")
_UNSAFE = str.maketrans("", "", ":,")


def hashes_to_infotext(hashes: Mapping[str, str]) -> str:
    """``name: hash, …``, the form of the built-in's "Lora hashes"."""
    return ", ".join(f"{name.translate(_UNSAFE)}: {value}" for name, value in hashes.items())


def hashes_from_infotext(text: str) -> dict[str, str]:
    """The opposite of `hashes_to_infotext`; what is not of that form is left out."""
    pairs = (part.strip().rpartition(":") for part in text.split(","))
    return {name.strip(): value.strip() for name, colon, value in pairs if colon and name.strip() and value.strip()}


def restore_names(prompt: str, hashes: Mapping[str, str], name_of: Callable[[str], str | None]) -> str:
    """The prompt with each adapter called as it is called here; `name_of` gives the name for a hash, None where it is not here."""

    def renamed(match: re.Match[str]) -> str:
        found = hashes.get(match.group(1).translate(_UNSAFE).strip())
        here = None if found is None else name_of(found)
        return match.group(0) if here is None else f"<lorax:{here}"

    return _TAG.sub(renamed, prompt)
