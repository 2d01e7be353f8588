"""Checks what the extension needs of the WebUI's packages, and says what is missing; it installs and upgrades nothing."""

import importlib.metadata
import re

NEEDED = {"torch": (2, 1), "safetensors": (0, 4, 2), "numpy": (1, 26), "scipy": (1, 11)}
"""Lowest versions; every WebUI that the extension supports brings them."""


def problems() -> list[str]:
    """One line for each package that is missing or too old."""
    found: list[str] = []
    for name, lowest in NEEDED.items():
        wanted = ".".join(map(str, lowest))
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found.append(f"the package {name} is missing: install {name} {wanted} or later into the WebUI's environment")
            continue
        if tuple(int(n) for n in re.findall(r"\d+", version.split("+")[0])[: len(lowest)]) < lowest:
            found.append(f"the package {name} is {version}, {wanted} or later is needed: update the WebUI")
    return found


for line in problems():
    print(f"LoRA-X: {line}")
