"""How a picture is made: tags, encodings with their cache, steps, hires pass, refiner."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

_TAG = re.compile(r"<(\w+):([^>]+)>")


class Params:
    """One tag's arguments, as the WebUI splits them."""

    def __init__(self, items: list[str]) -> None:
        self.items = items
        self.positional = [i for i in items if "=" not in i]
        self.named = dict(i.split("=", 1) for i in items if "=" in i)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Params) and self.items == other.items

    __hash__ = None  # pyright: ignore[reportAssignmentType]


def parse_prompt(prompt: str) -> tuple[str, dict[str, list[Params]]]:
    """The prompt without its tags, and their arguments by name, in the order of the prompt."""
    found: dict[str, list[Params]] = {}
    for name, arguments in _TAG.findall(prompt):
        found.setdefault(name, []).append(Params(arguments.split(":")))
    return _TAG.sub("", prompt).strip(), found


@dataclass
class StableDiffusionProcessing:
    """One request. The caches of text encodings belong to the class, so that the next request finds them."""

    cached_c: ClassVar[list[Any]] = [None, None]
    cached_uc: ClassVar[list[Any]] = [None, None]
    scripts: Any = None
    prompts: list[str] | None = None
    comments: dict[str, int] = field(default_factory=dict[str, int])
    extra_generation_params: dict[str, Any] = field(default_factory=dict[str, Any])
    is_hr_pass: bool = False

    def comment(self, text: str) -> None:
        self.comments[text] = 1


@dataclass
class StableDiffusionProcessingTxt2Img(StableDiffusionProcessing):
    cached_hr_c: ClassVar[list[Any]] = [None, None]
    cached_hr_uc: ClassVar[list[Any]] = [None, None]


@dataclass
class Request:
    """The fields of the API that the fake knows."""

    prompt: str
    steps: int = 4
    seed: int = 1
    n_iter: int = 1
    batch_size: int = 1
    hr_prompt: str = ""
    enable_hr: bool = False
    hr_checkpoint_name: str = ""
    refiner_checkpoint: str = ""
    refiner_switch_at: float = 0.0
    init_images: list[str] = field(default_factory=list[str])
    override_settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    alwayson_scripts: Mapping[str, Mapping[str, list[str]]] = field(default_factory=dict[str, Mapping[str, list[str]]])
    """``Inner pass``: another extension's, which repaints each picture by (prompt, checkpoint or empty)."""


def make_picture(webui: Any, request: Request) -> tuple[str, str]:
    """(hash of all that went into the picture, infotext)."""
    p = StableDiffusionProcessingTxt2Img(scripts=object())
    digest = hashlib.sha256(f"{request.seed} {request.batch_size} {request.init_images}".encode())
    for _ in range(request.n_iter):
        webui.sd_models.reload_model_weights()  # the refiner of the batch before may have changed it
        text, data = parse_prompt(request.prompt)
        p.prompts, p.is_hr_pass = [text], False
        webui.activate(p, data)
        _sample(webui, p, request, text, data, digest, p.cached_c)
        if request.enable_hr:
            hr_text, hr_data = parse_prompt(request.hr_prompt or request.prompt)
            if request.hr_checkpoint_name:
                webui.sd_models.reload_model_weights(info=webui.info(request.hr_checkpoint_name))
            p.is_hr_pass = True
            webui.activate(p, hr_data)
            _sample(webui, p, request, hr_text, hr_data, digest, p.cached_hr_c)
        if "Inner pass" in request.alwayson_scripts:
            prompt, checkpoint = request.alwayson_scripts["Inner pass"]["args"]
            _inner_pass(webui, p, prompt, checkpoint, digest)
    webui.deactivate(p)
    told = {"Steps": request.steps, "Seed": request.seed, "Model": webui.sd_models.model_data.sd_model.sd_checkpoint_info.name_for_extra}
    pairs = ", ".join(f"{k}: {_quoted(str(v))}" for k, v in {**told, **p.extra_generation_params}.items())
    return digest.hexdigest()[:16], f"{request.prompt}\n{pairs}"


def _inner_pass(webui: Any, p: Any, prompt: str, checkpoint: str, digest: Any) -> None:
    """A picture inside a picture: own tags, perhaps an own checkpoint, the same dictionary for the infotext."""
    before = webui.data["sd_model_checkpoint"]
    webui.data["sd_model_checkpoint"] = checkpoint or before
    webui.sd_models.reload_model_weights()
    text, data = parse_prompt(prompt)
    inner = StableDiffusionProcessing(object(), [text], extra_generation_params=p.extra_generation_params)
    webui.activate(inner, data)
    _sample(webui, inner, Request(prompt), text, data, digest, [None, None])
    webui.deactivate(inner)
    webui.data["sd_model_checkpoint"] = before
    webui.sd_models.reload_model_weights()


def _sample(webui: Any, p: Any, request: Request, text: str, data: Any, digest: Any, cache: list[Any]) -> None:
    digest.update(_conds(webui, text, data, cache).encode())
    switched = False
    for step in range(request.steps):
        if request.refiner_checkpoint and not switched and step / request.steps >= request.refiner_switch_at:
            switched = True
            webui.sd_models.reload_model_weights(info=webui.info(request.refiner_checkpoint))
            digest.update(_conds(webui, text, data, cache).encode())
        digest.update(webui.forward(text=False).encode())


def _conds(webui: Any, text: str, data: Any, cache: list[Any]) -> str:
    """The encoding of a prompt; the key holds the tags, not what stands behind them."""
    key = text, data, webui.sd_models.model_data.sd_model.sd_checkpoint_info.filename, webui.data.get("fp8_storage")
    if cache[0] is None or cache[0] != key:
        cache[:] = [key, f"{text} {webui.forward(text=True)}"]
    return cache[1]


def _quoted(value: str) -> str:
    return f'"{value}"' if any(c in value for c in ",:\n") else value
