"""The made-up Forge behind the questions of the contract."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorax import retarget
from lorax.hosts import detect
from tests.families import write_family
from tests.hosts.bench import Picture
from tests.hosts.fake_forge.webui import FakeForge


class FakeForgeBench:
    """Checkpoints a and b of a narrow SD1, where b is a fine-tune of a."""

    def __init__(self, folder: Path) -> None:
        self.models = folder / "models"
        for name in ("Stable-diffusion", "Lora", "Lorax"):
            (self.models / name).mkdir(parents=True)
        family = write_family(folder / "family", "bk-sdm-small", "bk-sdm-tiny")
        for name, member in (("a", "source"), ("b", "fine")):
            family[member].rename(self.models / "Stable-diffusion" / f"{name}.safetensors")
        self.checkpoints = ("a", "b")
        self.webui = FakeForge(self.models)
        self.webui.data["lorax_cache_folder"] = str(folder / "cache")
        script_class = detect.start(retarget.make_service, lambda setting: (None, None), lambda host: None)
        assert script_class is not None
        self.webui.start(script_class)

    def picture(self, prompt: str, **fields: Any) -> Picture:
        return Picture(*self.webui.picture({"prompt": prompt, **fields}))

    def switch(self, checkpoint: str) -> None:
        self.webui.choose(f"{checkpoint}.safetensors")

    def set(self, **options: Any) -> None:
        self.webui.data.update(options)

    def trace(self) -> Mapping[str, Any]:
        model = self.webui.model
        objects = {name: getattr(model, name, None) for name in ("forge_objects_after_applying_lora", "forge_objects")}
        patches = {n: [] if o is None else [*o.unet.lora_patches, *o.clip.patcher.lora_patches] for n, o in objects.items()}
        return {
            "patched": {n: sorted(str(key[0]) for key in keys) for n, keys in patches.items()},
            "registered": sorted(self.webui.registry),
            "model": type(model).__name__,
        }

    def paste(self, infotext: str) -> Mapping[str, Any]:
        prompt, _, told = infotext.partition("\n")
        params = {"Prompt": prompt} | {k: v for k, _, v in (part.partition(": ") for part in told.split(", "))}
        for callback in self.webui.callbacks["infotext_pasted"]:
            callback(infotext, params)
        return {"prompt": params["Prompt"]}

    def log(self) -> str:
        return "\n".join(self.webui.lines)

    def close(self) -> None:
        for callback in self.webui.callbacks["script_unloaded"]:
            callback()
        self.webui.close()
