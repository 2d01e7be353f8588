"""The made-up WebUI as a bench of the contract."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from converter.samples import relative, sample_checkpoint
from lorax import retarget
from lorax.archs import by_name
from lorax.hosts import a1111
from lorax.hosts.base import SETTINGS
from lorax.hosts.fake import FakeWebUI
from lorax.hosts.fake.processing import Request as FakeRequest
from lorax.safefile import write_safetensors
from tests.families import MEDIUM
from tests.hosts.bench import Picture, Refused


class HTTPError(Exception):
    def __init__(self, status_code: int, detail: str = "", headers: Any = None) -> None:
        super().__init__(detail)
        self.status_code, self.detail = status_code, detail


class FakeBench:
    """`tests.hosts.bench.Bench` on `lorax.hosts.fake`."""

    started = True

    def __init__(self, folder: Path) -> None:
        self.models = folder / "models"
        for name in ("Stable-diffusion", "Lora", "Lorax"):
            (self.models / name).mkdir(parents=True)
        self._checkpoints("sd1", ("a", "b"), both=True)
        self._checkpoints("vega", ("xl_a", "xl_b"), both=False)
        self.checkpoints = tuple(sorted(p.stem for p in (self.models / "Stable-diffusion").glob("*.safetensors")))
        self._spoken = io.StringIO()
        self._stubs = {} if "fastapi" in sys.modules else {"fastapi": stub("fastapi", HTTPException=HTTPError)}
        sys.modules.update(self._stubs)
        self.webui = FakeWebUI(self.models)
        self.webui.data["lorax_cache_folder"] = str(folder / "cache")
        self.first = (self.webui.networks.load_networks, self.webui.sd_models.reload_model_weights, list(self.webui.networks.module_types))
        self.load_scripts()
        self.webui.start()

    def load_scripts(self) -> None:
        a1111.start(retarget.make_service, lambda setting: (None, None), lambda host: None)

    def _checkpoints(self, arch: str, names: tuple[str, str], both: bool) -> None:
        """A base and a relative of it, each with a config of its own, and perhaps the same two without."""
        folder = self.models / "Stable-diffusion"
        source = sample_checkpoint(by_name(arch), widths=MEDIUM)
        for name, tensors in zip(names, (source, relative(source, 0.2)), strict=True):
            write_safetensors(folder / f"{name}.safetensors", {n: t.half() if t.is_floating_point() else t for n, t in tensors.items()}, {})
            (folder / f"{name}.yaml").touch()
            if both:
                shutil.copyfile(folder / f"{name}.safetensors", folder / f"same_{name}.safetensors")

    def picture(self, prompt: str, **fields: Any) -> Picture:
        known = {k: v for k, v in fields.items() if k in inspect.signature(FakeRequest).parameters}
        with contextlib.redirect_stderr(self._spoken):
            pixels, infotext = self.webui.picture(prompt=prompt, **known)
        self.last = pixels
        return Picture(pixels, infotext)

    def switch(self, checkpoint: str) -> None:
        self.set(sd_model_checkpoint=f"{checkpoint}.safetensors")

    def set(self, **options: Any) -> None:
        with contextlib.redirect_stderr(self._spoken):
            self.webui.set(options)

    def get(self, path: str, **query: str) -> Any:
        return self.webui.routes[path](**query)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        route = self.webui.routes[path]
        models = [p.annotation for p in inspect.signature(route).parameters.values()]
        try:
            return route(*(model(**(body or {})) for model in models))
        except HTTPError as error:
            raise Refused(error.status_code, error.detail) from None

    def paste(self, infotext: str) -> Mapping[str, Any]:
        prompt, _, last = infotext.rpartition("\n")
        params: dict[str, Any] = {"Prompt": prompt}
        params.update({k: v.strip('"') for k, v in re.findall(r'\s*([\w ]+): ("[^"]*"|[^,]*)(?:,|$)', last)})
        self.webui.call("infotext_pasted", infotext, params)
        return {"prompt": params["Prompt"], "settings": [(s.infotext, s.key, params[s.infotext]) for s in SETTINGS if s.infotext in params]}

    def trace(self) -> Mapping[str, Any]:
        networks, model = self.webui.networks, self.webui.sd_models.model_data.sd_model
        return {
            "load_networks": networks.load_networks == self.first[0],
            "reload_model_weights": self.webui.sd_models.reload_model_weights == self.first[1],
            "module_types": networks.module_types == self.first[2],
            "registered": sorted(self.webui.registry),
            "loaded": [n.name for n in networks.loaded_networks],
            "patched": sorted({n[0] for m in model.modules() for n in getattr(m, "network_current_names", ())}),
            "memory": sorted(networks.networks_in_memory),
            "hashes": sorted(networks.available_network_hash_lookup),
        }

    def log(self) -> str:
        return "Startup time\n" + self._spoken.getvalue() + "\n".join(self.webui.lines)

    def close(self) -> None:
        self.webui.call("script_unloaded")
        self.webui.close()
        for name in self._stubs:
            sys.modules.pop(name, None)


def stub(name: str, **contents: Any) -> ModuleType:
    made = ModuleType(name)
    made.__dict__.update(contents)
    return made
