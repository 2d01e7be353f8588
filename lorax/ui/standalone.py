"""The panels on a page of their own, on loopback: for people of programs that have no place for them."""

# pyright: reportMissingImports=false

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorax.cache import default_folder
from lorax.catalog import Catalog
from lorax.errors import FileError, MissingPackage
from lorax.hosts.base import KnownBase, RetargetOptions, Service
from lorax.render.panel_style import panel_style
from lorax.retarget import make_service
from lorax.ui.workplace import Workplace

LOOPBACK = "127.0.0.1"


@dataclass
class Folders:
    """A host without pictures (`lorax.hosts.base.Host`): the folders that were named on the command line."""

    adapters: Path
    checkpoints: Path
    device: str = "auto"
    title: str = "the converter"
    service: Service = field(init=False)

    def __post_init__(self) -> None:
        self.service = make_service((self.adapters,), default_folder(), 0, self.bases)

    def install(self) -> None: ...

    def uninstall(self) -> None: ...

    def active_base(self) -> KnownBase | None:
        return None

    def chosen_base(self) -> KnownBase | None:
        return None

    def bases(self) -> Sequence[KnownBase]:
        return [KnownBase(path, (path.name,)) for path in Catalog.scan([self.checkpoints]).paths]

    def options(self) -> RetargetOptions:
        return RetargetOptions(device=self.device)


def place_of(adapters: Path, checkpoints: Path, out: Path, device: str = "auto") -> Workplace:
    """The workplace of three folders, which have to exist."""
    for folder in (adapters, checkpoints, out):
        if not folder.is_dir():
            raise FileError(f"'{folder}' is not a folder: create it, or name another")
    host = Folders(adapters, checkpoints, device)
    return Workplace(host, lambda: (out,), lambda: (checkpoints,), host.service.refresh)


def app_of(place: Workplace) -> Any:
    """The page as an ASGI application."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio as gr
        from fastapi import FastAPI
    except ImportError:
        raise MissingPackage("the page needs gradio, which is not installed: pip install 'lorax-webui[ui]'") from None
    from lorax.ui import tab
    from lorax.ui.compat import queue
    from lorax.ui.loopback import Loopback
    from lorax.ui.running import OwnRunner

    demo = queue(tab.build(place, OwnRunner(), panel_style() + PAGE), several=8)
    return Loopback(gr.mount_gradio_app(FastAPI(), demo, path="/"))


def serve(place: Workplace, port: int) -> None:
    """Show the page till Ctrl-C. Nothing leaves this machine: no telemetry, no fonts or scripts from elsewhere."""
    app = app_of(place)
    import uvicorn

    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
        except OSError as error:
            raise FileError(f"port {port} cannot be used: {error.strerror or error}; choose another with --port, or 0 for any") from None
        print(f"LoRA-X: http://{LOOPBACK}:{listener.getsockname()[1]}", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run([listener])


PAGE = """
.gradio-container{max-width:1280px!important;margin:auto}
footer{display:none!important}
"""
