"""The hooks of a picture, as the WebUI's own kind of script."""

# pyright: reportMissingImports=false, reportUntypedBaseClass=false

from __future__ import annotations

from typing import Any

from lorax.hosts.forge.follower import Follower


def script_of(follower: Follower) -> type:
    """A class for the namespace of the script file, where the WebUI looks for it."""
    from modules import scripts

    class LoraxScript(scripts.Script):
        """Runs with every picture, without controls."""

        is_lorax = True

        def title(self) -> str:
            return "LoRA-X"

        def show(self, is_img2img: bool) -> Any:
            return scripts.AlwaysVisible

        def process(self, p: Any, *args: Any) -> None:
            follower.begin(p)

        def after_extra_networks_activate(self, p: Any, *args: Any, **kwargs: Any) -> None:
            follower.apply(p)

        def postprocess(self, p: Any, processed: Any, *args: Any) -> None:
            follower.end(p)

    return LoraxScript
