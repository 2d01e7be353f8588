"""A Forge that is made up: it reproduces what was observed in the real one, so that the host code is tested anywhere.

`patchers`: patches lie on copies of patchers, and a model is merged again only where the identities of its patches differ.
`webui`: a model is loaded when a picture is made; the built-in resets both sets of patchers, and only where its own list
differs; text encodings are kept by the tags of a prompt. A picture is a hash of the weights that would have made it.
Nothing here is the WebUI's code.
"""

from __future__ import annotations

from tests.hosts.fake_forge.bench import FakeForgeBench

__all__ = ["FakeForgeBench"]
