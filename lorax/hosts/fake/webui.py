"""The WebUI itself: its modules, its ways of changing the checkpoint, its options and callbacks."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from lorax.hosts.fake.model import CheckpointInfo, Model
from lorax.hosts.fake.networks import Networks
from lorax.hosts.fake.processing import Request, StableDiffusionProcessing, StableDiffusionProcessingTxt2Img, make_picture


class FakeWebUI:
    """Stands in `sys.modules` until `close`. models: its ``models`` folder, with Stable-diffusion, Lora and Lorax in it."""

    def __init__(self, models: Path) -> None:
        self.models = models
        self.data: dict[str, Any] = {"sd_checkpoints_limit": 1}
        self.lines: list[str] = []
        self.routes: dict[str, Callable[..., Any]] = {}
        self.callbacks: dict[str, list[Callable[..., Any]]] = {}
        self.registry: dict[str, Any] = {}
        self.options_templates: dict[str, Any] = {}
        self.checkpoints = {p.name: CheckpointInfo(str(p)) for p in sorted((models / "Stable-diffusion").glob("*.safetensors"))}
        self.data["sd_model_checkpoint"] = next(iter(self.checkpoints))
        self.networks = Networks(models / "Lora", lambda: self.sd_models.model_data.sd_model, self._functional, self.lines.append)
        self.sd_models = self._sd_models()
        self._replaced = {name: sys.modules.get(name) for name in self._modules()}
        sys.modules.update(self._modules())

    def start(self) -> None:
        """Load the first checkpoint and call what extensions registered."""
        self.registry.clear()
        self.registry["lora"] = self.networks.extra_network_lora
        if self.sd_models.model_data.sd_model is None:
            self._load(self._selected())
        self.call("before_ui")
        self.call("app_started", None, SimpleNamespace(add_api_route=self._add_route))

    def reload_ui(self, load_scripts: Callable[[], None]) -> None:
        """Reload UI: extensions are unloaded, callbacks and registry emptied, scripts loaded again; modules stay."""
        self.call("script_unloaded")
        self.callbacks.clear()
        self.routes.clear()
        load_scripts()
        self.start()

    def close(self) -> None:
        for name, before in self._replaced.items():
            if before is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = before

    def picture(self, **fields: Any) -> tuple[str, str]:
        """(hash, infotext), as the API's txt2img with these fields."""
        request = Request(**fields)
        before = {key: self.data.get(key) for key in request.override_settings}
        self.data.update(request.override_settings)
        try:
            self.sd_models.reload_model_weights()
            return make_picture(self, request)
        finally:
            for key, value in before.items():
                self.data[key] = value

    def set(self, options: Mapping[str, Any]) -> None:
        """The API's options: changes of the checkpoint and of fp8 load weights."""
        changed = {key for key, value in options.items() if self.data.get(key) != value}
        self.data.update(options)
        if changed & {"fp8_storage", "cache_fp16_weight"}:
            self.sd_models.reload_model_weights(forced_reload=True)
        elif "sd_model_checkpoint" in changed:
            self.sd_models.reload_model_weights()

    def info(self, name: str) -> CheckpointInfo | None:
        return next((i for title, i in self.checkpoints.items() if name and name in title), None)

    def activate(self, p: Any, data: Mapping[str, Sequence[Any]]) -> None:
        """Those that the prompt names, in its order, then all others with nothing; what they raise is printed."""
        done: list[Any] = []
        for name, params in data.items():
            if name in self.registry:
                self._guarded(self.registry[name].activate, p, list(params))
                done.append(self.registry[name])
        for network in list(self.registry.values()):
            if network not in done:
                self._guarded(network.activate, p, [])

    def deactivate(self, p: Any) -> None:
        for network in list(self.registry.values()):
            self._guarded(network.deactivate, p)

    def forward(self, text: bool) -> str:
        return self.sd_models.model_data.sd_model.state(text, self.networks.apply)

    def call(self, name: str, *arguments: Any) -> None:
        for callback in list(self.callbacks.get(name, [])):
            callback(*arguments)

    def _functional(self) -> bool:
        return bool(self.data.get("lora_functional"))

    def _selected(self) -> CheckpointInfo:
        return self.info(self.data["sd_model_checkpoint"]) or next(iter(self.checkpoints.values()))

    def _guarded(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            call(*arguments)
        except Exception as error:
            self.lines.append(f"Traceback: {type(error).__name__}: {error}")

    def _config(self, info: CheckpointInfo) -> str:
        own = Path(info.filename).with_suffix(".yaml")
        return str(own) if own.exists() else "common"

    def _load(self, info: CheckpointInfo) -> Model:
        """A new model object; then the callback, then the encoding of no prompt, for which every network is activated."""
        data = self.sd_models.model_data
        data.sd_model = Model(info, self._config(info))
        data.loaded_sd_models.insert(0, data.sd_model)
        self.call("model_loaded", data.sd_model)
        self.activate(StableDiffusionProcessingTxt2Img(), {})
        self.forward(text=True)
        return data.sd_model

    def _reload(self, sd_model: Any = None, info: CheckpointInfo | None = None, forced_reload: bool = False) -> Model:
        """The three ways to switch: a kept model comes back without a word, the same object takes other weights, a new object."""
        info, data = info or self._selected(), self.sd_models.model_data
        model = sd_model or data.sd_model
        if model is not None and model.sd_checkpoint_info.filename == info.filename and not forced_reload:
            return model
        kept = next((m for m in data.loaded_sd_models if m.sd_checkpoint_info.filename == info.filename), None)
        if kept is not None and not forced_reload:
            data.sd_model = kept
            data.loaded_sd_models.remove(kept)
            data.loaded_sd_models.insert(0, kept)
            return kept
        limit = int(self.data["sd_checkpoints_limit"])
        if limit > 1 and len(data.loaded_sd_models) < limit and not forced_reload:
            return self._load(info)
        if model is not None and model.used_config == self._config(info):
            model.load(info)
            self.call("model_loaded", model)
            return model
        del data.loaded_sd_models[max(0, limit - 1) :]
        return self._load(info)

    def _sd_models(self) -> ModuleType:
        return module(
            "modules.sd_models",
            model_data=SimpleNamespace(sd_model=None, loaded_sd_models=[]),
            reload_model_weights=self._reload,
            checkpoints_list=self.checkpoints,
            get_closet_checkpoint_match=self.info,
        )

    def _modules(self) -> dict[str, ModuleType]:
        shared = module(
            "modules.shared",
            opts=SimpleNamespace(data=self.data),
            cmd_opts=SimpleNamespace(lorax_dir=None, lora_dir=str(self.models / "Lora"), api=True, api_auth=None),
            state=SimpleNamespace(textinfo=None, interrupted=False),
            options_templates=self.options_templates,
            OptionInfo=Option,
            options_section=lambda section, options: options,
        )
        parts = {
            "shared": shared,
            "sd_models": self.sd_models,
            "paths": module("modules.paths", models_path=str(self.models)),
            "errors": module("modules.errors", report=lambda text, exc_info=False: self.lines.append(f"Traceback: {text}")),
            "extra_networks": module(
                "modules.extra_networks",
                extra_network_registry=self.registry,
                register_extra_network=lambda n: self.registry.__setitem__(n.name, n),
            ),
            "processing": module(
                "modules.processing",
                StableDiffusionProcessing=StableDiffusionProcessing,
                StableDiffusionProcessingTxt2Img=StableDiffusionProcessingTxt2Img,
            ),
            "call_queue": module("modules.call_queue", queue_lock=threading.Lock()),
            "script_callbacks": module(
                "modules.script_callbacks",
                **{
                    f"on_{n}": self._callback(n)
                    for n in ("before_ui", "script_unloaded", "infotext_pasted", "app_started", "model_loaded", "ui_tabs")
                },
            ),
        }
        host = module("modules", **parts)
        return {"modules": host, "networks": self.networks, **{f"modules.{name}": part for name, part in parts.items()}}

    def _callback(self, name: str) -> Callable[[Callable[..., Any]], None]:
        return lambda call: self.callbacks.setdefault(name, []).append(call)

    def _add_route(self, path: str, endpoint: Callable[..., Any], **_: Any) -> None:
        self.routes[path] = endpoint


class Option:
    """``shared.OptionInfo``"""

    def __init__(self, default: Any, label: str, component: Any = None, arguments: Any = None, infotext: str | None = None) -> None:
        self.default, self.label, self.infotext = default, label, infotext

    def info(self, text: str) -> Option:
        self.label += f" ({text})"
        return self


def module(name: str, **contents: Any) -> ModuleType:
    made = ModuleType(name)
    made.__dict__.update(contents)
    return made
