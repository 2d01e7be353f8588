"""``/lorax/v1``: what the page and other programs ask. Annotations are read at run time by FastAPI, hence no string annotations here."""

# pyright: reportMissingImports=false

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from lorax.errors import LoraxError, WouldOverwrite
from lorax.hosts.base import Carried, Host, KnownBase, Service, Wish, webui
from lorax.version import VERSION

PREFIX = "/lorax/v1"


class Routes:
    """Adds the routes to the WebUI's app; only where its API is on, and behind ``--api-auth``."""

    def __init__(self, service: Service, host: Host, applied: Callable[[], Mapping[str, Carried]]) -> None:
        """applied: what the last picture used, by name."""
        self._service = service
        self._host = host
        self._applied = applied

    def register(self, _demo: Any, app: Any) -> None:
        """Called when the WebUI's server has started."""
        from modules import shared

        if not (shared.cmd_opts.api or getattr(shared.cmd_opts, "nowebui", False)):
            return
        guard = _guard(shared.cmd_opts.api_auth)
        for path, answer, method in (
            ("version", self._version, "GET"),
            ("adapters", self._adapters, "GET"),
            ("status", self._status, "GET"),
            ("refresh", self._refresh, "POST"),
            ("transfer", self._transfer(), "POST"),
        ):
            app.add_api_route(f"{PREFIX}/{path}", answer, methods=[method], dependencies=guard, tags=["LoRA-X"])

    def _version(self) -> dict[str, Any]:
        """The extension's version and how it stands with the host."""
        return {"version": VERSION, "host": self._host.title, "usable": webui.networks() is not None}

    def _adapters(self) -> list[dict[str, Any]]:
        """Every adapter by name; paths are below the WebUI's own folders."""
        return [
            {"name": e.name, "alias": e.alias, "subpath": e.subpath, "native": e.native, "hash": e.shorthash}
            for e in self._service.entries()
        ]

    def _status(self) -> dict[str, Any]:
        """What is applied, and to which checkpoint."""
        base = self._host.active_base()
        applied = {
            name: {"digest": c.digest, "summary": c.summary, "verdict": c.verdict, "note": c.note}
            for name, c in dict(self._applied()).items()
        }
        return {"checkpoint": None if base is None else base.name, "applied": applied, "warming": self._service.warming}

    def _refresh(self) -> dict[str, int]:
        """Look at the folders again."""
        self._service.refresh()
        return {"adapters": len(self._service.entries())}

    def _transfer(self) -> Callable[..., dict[str, Any]]:
        from fastapi import HTTPException
        from pydantic import BaseModel, Field

        class Transfer(BaseModel):
            adapter: str = Field(description="name of an adapter, as in /adapters")
            target: str = Field("", description="title, name or hash of a checkpoint; empty: the active one")
            source: str = Field("", description="the checkpoint that the adapter was trained on; empty: as the adapter says")
            method: Literal["", "auto", "align", "project", "copy"] = ""
            rank: int = Field(0, ge=0, description="k of a projection; 0: as the settings say")
            dtype: Literal["fp16", "bf16", "fp32"] = "fp16"
            output: str = Field("", description="name of the new file, without folder and suffix; empty: <adapter>-<target>")
            overwrite: bool = False

        def transfer(request: Transfer) -> dict[str, Any]:
            """Write an adapter made for a checkpoint into the first adapter folder."""
            from modules.call_queue import queue_lock

            try:
                base = self._target(request.target)
                output = output_path(webui.adapter_folders()[0], request.output or f"{request.adapter}-{base.name}")
                wish = Wish(request.adapter, method=request.method or None, k=request.rank or None, source=request.source or None)
                with queue_lock, contextlib.ExitStack() as after:
                    after.callback(webui.progress_over)
                    return self._service.transfer(wish, base, webui.options(), output, request.dtype, request.overwrite, webui.progress)
            except LoraxError as error:
                raise HTTPException(409 if isinstance(error, WouldOverwrite) else 422, str(error)) from None

        return transfer

    def _target(self, name: str) -> KnownBase:
        base = webui.base_named(name) if name else self._host.active_base()
        if base is None:
            raise LoraxError(f"no checkpoint is called '{name}'" if name else "no checkpoint is loaded: give a target")
        return base


def output_path(folder: Path, name: str) -> Path:
    """A file of this name in the folder; LoraxError for a name that would lead anywhere else."""
    stem = name.strip()
    if not stem or stem != Path(stem).name or any(c in stem for c in '/\\:*?"<>|\0') or stem.startswith("."):
        raise LoraxError(f"'{name}' is no plain file name: write letters, digits, spaces, - and _ only, without a folder")
    return folder / f"{stem}.safetensors"


def _guard(credentials: str | None) -> list[Any]:
    """What the WebUI demands of its own API routes (modules.api.api.Api.auth)."""
    if not credentials:
        return []
    from secrets import compare_digest

    from fastapi import Depends, HTTPException
    from fastapi.security import HTTPBasic, HTTPBasicCredentials

    known = dict(pair.split(":", 1) for pair in credentials.split(","))

    def check(given: HTTPBasicCredentials = Depends(HTTPBasic())) -> bool:  # noqa: B008
        expected = known.get(given.username)
        if expected is not None and compare_digest(given.password.encode(), expected.encode()):
            return True
        raise HTTPException(401, "Incorrect username or password", {"WWW-Authenticate": "Basic"})

    return [Depends(check)]
