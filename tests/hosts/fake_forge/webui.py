"""The WebUI around the models: its modules, the built-in, and the course of a picture."""

from __future__ import annotations

import functools
import hashlib
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

from lorax.errors import FileError
from lorax.safefile import open_tensors
from tests.hosts.fake_forge.patchers import CheckpointInfo, FakeInitialModel, Model, load_lora_for_models

_TAG = re.compile(r"<(\w+):([^>]+)>")


class Params:
    """One tag's arguments."""

    def __init__(self, items: list[str]) -> None:
        self.items = items
        self.positional = [i for i in items if "=" not in i]
        self.named = dict(i.split("=", 1) for i in items if "=" in i)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Params) and self.items == other.items

    __hash__ = None


def parse(prompt: str) -> tuple[str, dict[str, list[Params]]]:
    found: dict[str, list[Params]] = {}
    for name, arguments in _TAG.findall(prompt):
        found.setdefault(name, []).append(Params(arguments.split(":")))
    return _TAG.sub("", prompt).strip(), found


class Processing:
    """One picture. The caches of text encodings belong to the class, so that the next picture finds them."""

    cached_c = cached_uc = [None, None, None]  # noqa: RUF012
    cached_hr_c = cached_hr_uc = [None, None, None]  # noqa: RUF012

    def __init__(self, scripts: Any, fields: Mapping[str, Any]) -> None:
        self.scripts, self.script_args = scripts, []
        self.prompt, self.hr_prompt = fields["prompt"], fields.get("hr_prompt") or fields["prompt"]
        self.disable_extra_networks = fields.get("disable_extra_networks", False)
        self.comments: dict[str, int] = {}
        self.extra_generation_params: dict[str, Any] = {}
        self.is_hr_pass = False

    def comment(self, text: str) -> None:
        self.comments[text] = 1


class LoraTag:
    """``<lora:…>``"""

    name = "lora"

    def __init__(self, webui: FakeForge) -> None:
        self._webui = webui

    def activate(self, p: Any, params_list: list[Params]) -> None:
        wanted = []
        for params in params_list:
            te = float(params.named.get("te", params.positional[1] if len(params.positional) > 1 else 1.0))
            wanted.append((params.positional[0], float(params.named.get("unet", te)), te))
        self._webui.load_networks(wanted)

    def deactivate(self, p: Any) -> None:
        pass


class FakeForge:
    """Stands in `sys.modules` until `close`."""

    def __init__(self, models: Path) -> None:
        self.folder = models
        self.model: Any = FakeInitialModel()
        self.loaded_for = ""
        self.beside: list[str] = []
        self.registry: dict[str, Any] = {}
        self.callbacks: dict[str, list[Callable[..., Any]]] = {}
        self.lines: list[str] = []
        self.scripts: list[Any] = []
        self.checkpoints = {p.name: CheckpointInfo(str(p)) for p in sorted((models / "Stable-diffusion").glob("*.safetensors"))}
        self.data: dict[str, Any] = {"sd_model_checkpoint": next(iter(self.checkpoints))}
        self.choice = SimpleNamespace(onchange=None)
        self.networks = self._networks()
        self._read = functools.lru_cache(maxsize=5)(read_tensors)
        self._replaced = {name: sys.modules.get(name) for name in self._modules()}
        sys.modules.update(self._modules())

    def start(self, script_class: type) -> None:
        self.scripts.append(script_class())
        self.registry["lora"] = self.networks.extra_network_lora
        for name in ("before_ui", "app_started"):
            for callback in self.callbacks.get(name, []):
                callback(*([None, None] if name == "app_started" else []))

    def close(self) -> None:
        for name, before in self._replaced.items():
            if before is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = before

    def choose(self, checkpoint: str) -> None:
        """Another checkpoint is chosen; it is loaded when a picture needs it."""
        if self.data["sd_model_checkpoint"] != checkpoint:
            self.data["sd_model_checkpoint"] = checkpoint
            if self.choice.onchange is not None:
                self.choice.onchange()

    def load(self) -> None:
        wanted = self.data["sd_model_checkpoint"]
        if self.loaded_for != wanted:
            self.model = None
            self.model = Model(self.info(wanted), self.beside)
            for callback in self.callbacks.get("model_loaded", []):
                callback(self.model)
            self.loaded_for = wanted
            Processing.cached_c[:] = Processing.cached_hr_c[:] = [None, None, None]

    def info(self, name: str) -> CheckpointInfo:
        return next(i for i in self.checkpoints.values() if name in (i.name, i.name_for_extra))

    def load_networks(self, wanted: list[tuple[str, float, float]]) -> None:
        """Nothing where the list is the one before; else both sets of patchers start from the model's own."""
        files = [(str(self.folder / "Lora" / f"{name}.safetensors"), unet, te) for name, unet, te in wanted]
        if self.model.current_lora_hash == str(files):
            return
        self.model.current_lora_hash = str(files)
        objects, original = self.model.forge_objects, self.model.forge_objects_original
        objects.unet, objects.clip = original.unet, original.clip
        online = objects.unet.model.storage_dtype != torch.float16
        for path, unet, te in files:
            loaded = self.networks.load_lora_for_models(
                objects.unet, objects.clip, self._read(path), unet, te, filename=path, online_mode=online
            )
            objects.unet, objects.clip = loaded
        self.model.forge_objects_after_applying_lora = objects.shallow_copy()

    def picture(self, fields: Mapping[str, Any]) -> tuple[str, str]:
        before = {key: self.data.get(key) for key in fields.get("override_settings", {})}
        self.data.update(fields.get("override_settings", {}))
        try:
            self.load()
            return self._inner(Processing(SimpleNamespace(alwayson_scripts=self.scripts), fields), fields)
        finally:
            self.data.update(before)

    def _inner(self, p: Processing, fields: Mapping[str, Any]) -> tuple[str, str]:
        self._hook("process", p)
        digest = hashlib.sha256()
        text, data = parse(p.prompt)
        hr_text, hr_data = parse(p.hr_prompt)
        self.model.forge_objects = self.model.forge_objects_original.shallow_copy()
        self._activate(p, data)
        self._sample(text, data, digest, fields, p, p.cached_c)
        if fields.get("enable_hr"):
            self._other(fields.get("hr_checkpoint_name"))
            p.is_hr_pass = True
            self._activate(p, hr_data)
            self._sample(hr_text, hr_data, digest, {}, p, p.cached_hr_c)
        self._hook("postprocess", p, None)
        told = ", ".join(f"{k}: {v}" for k, v in {"Steps": 4, **p.extra_generation_params}.items())
        return digest.hexdigest()[:16], f"{p.prompt}\n{told}"

    def _sample(self, text: str, data: Any, digest: Any, fields: Mapping[str, Any], p: Processing, cache: list[Any]) -> None:
        self.model.forge_objects = self.model.forge_objects_after_applying_lora.shallow_copy()
        digest.update(self._conds(text, data, cache).encode())
        digest.update(self.model.forge_objects.unet.use().encode())
        if fields.get("refiner_checkpoint"):
            self._other(fields["refiner_checkpoint"])
            self._activate(p, data)
            digest.update(self._conds(text, data, cache).encode())
            digest.update(self.model.forge_objects.unet.use().encode())

    def _other(self, checkpoint: str | None) -> None:
        """The picture goes on with another checkpoint; the chosen one is chosen again, and loaded for the next picture."""
        if checkpoint:
            chosen = self.data["sd_model_checkpoint"]
            self.choose(checkpoint)
            self.load()
            self.choose(chosen)

    def _conds(self, text: str, data: Any, cache: list[Any]) -> str:
        """The encoding of a prompt; the key holds the tags, not what stands behind them."""
        key = text, data, self.model.sd_checkpoint_info.filename
        if cache[0] is None or cache[0] != key:
            cache[:] = [key, f"{text} {self.model.forge_objects.clip.patcher.use()}", None]
        return cache[1]

    def _activate(self, p: Any, data: Mapping[str, list[Params]]) -> None:
        """Those that the prompt names, in its order, then all others with nothing, then the scripts."""
        if p.disable_extra_networks:
            return
        named = [name for name in data if name in self.registry]
        for name in [*named, *(n for n in list(self.registry) if n not in named)]:
            self._guarded(self.registry[name].activate, p, list(data.get(name, [])))
        self._hook("after_extra_networks_activate", p, batch_number=0)

    def _hook(self, name: str, *arguments: Any, **named: Any) -> None:
        for script in self.scripts:
            self._guarded(getattr(script, name), *arguments, **named)

    def _guarded(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        try:
            call(*arguments, **named)
        except Exception as error:
            self.lines.append(f"Traceback: {type(error).__name__}: {error}")

    def _networks(self) -> ModuleType:
        module = ModuleType("networks")
        module.load_lora_for_models = load_lora_for_models
        module.load_networks = self.load_networks
        module.extra_network_lora = LoraTag(self)
        module.available_networks = Listed(self.folder / "Lora")
        return module

    def _modules(self) -> dict[str, Any]:
        def on(name: str) -> Callable[[Callable[..., Any]], None]:
            return lambda callback: self.callbacks.setdefault(name, []).append(callback)

        def onchange(key: str, act: Callable[[], None], call: bool = True) -> None:
            self.choice.onchange = act

        opts = SimpleNamespace(data=self.data, data_labels={"sd_model_checkpoint": self.choice}, onchange=onchange)
        option_info = lambda *a, **k: SimpleNamespace(info=lambda text: text)  # noqa: E731
        parts = {
            "extra_networks": {
                "extra_network_registry": self.registry,
                "register_extra_network": lambda n: self.registry.update({n.name: n}),
            },
            "shared": {
                "opts": opts,
                "cmd_opts": SimpleNamespace(api=False, lora_dir=str(self.folder / "Lora"), lorax_dir=None),
                "state": SimpleNamespace(textinfo=None, interrupted=False),
                "OptionInfo": option_info,
                "options_section": lambda section, options: options,
                "options_templates": {},
            },
            "sd_models": {
                "model_data": SimpleNamespace(
                    get_sd_model=lambda: self.model, forge_loading_parameters={"additional_modules": self.beside}
                ),
                "checkpoints_list": self.checkpoints,
                "get_closet_checkpoint_match": lambda name: self.checkpoints.get(name),
            },
            "processing": {"StableDiffusionProcessing": Processing, "StableDiffusionProcessingTxt2Img": Processing},
            "script_callbacks": {
                f"on_{n}": on(n) for n in ("before_ui", "model_loaded", "script_unloaded", "infotext_pasted", "app_started", "ui_tabs")
            },
            "scripts": {"Script": object, "AlwaysVisible": object()},
            "errors": {"report": lambda text, exc_info=False: self.lines.append(f"Traceback: {text}")},
            "paths": {"models_path": str(self.folder)},
        }
        found: dict[str, Any] = {"modules": ModuleType("modules"), "networks": self.networks}
        for name, content in parts.items():
            module = ModuleType(f"modules.{name}")
            module.__dict__.update(content)
            setattr(found["modules"], name, module)
            found[f"modules.{name}"] = module
        return found


class Listed:
    """``networks.available_networks``: what lies in the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def values(self) -> list[Any]:
        return [SimpleNamespace(filename=str(p), metadata=read_metadata(p)) for p in self._folder.glob("*.safetensors")]


def read_tensors(path: str) -> dict[str, Any]:
    file = open_tensors(Path(path))
    try:
        return {name: file.read(name) for name in file.tensors}
    finally:
        file.close()


def read_metadata(path: Path) -> dict[str, str]:
    try:
        file = open_tensors(path)
    except FileError:
        return {}
    try:
        return dict(file.metadata)
    finally:
        file.close()
