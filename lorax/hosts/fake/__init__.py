"""A WebUI that is made up: it reproduces what was observed in AUTOMATIC1111's 1.10.1, so that the host code is tested anywhere.

Each behaviour stands where the real one has it: networks are applied again only where names or multipliers differ
(`networks`), loading a list of networks empties it first, loading a checkpoint asks for the encoding of no prompt, a kept
model comes back without a callback, and text encodings are cached by the tags of a prompt (`webui`). A picture is a hash of
the weights that would have made it. Nothing here is the WebUI's code.
"""

from __future__ import annotations

from lorax.hosts.fake.webui import FakeWebUI

__all__ = ["FakeWebUI"]
