"""The panels' workplace in a WebUI."""

from __future__ import annotations

from pathlib import Path

from lorax.hosts.base import Host, page, webui
from lorax.ui.workplace import Workplace


def make(host: Host) -> Workplace:
    """Adapters, checkpoints and folders are the WebUI's own."""

    def list_again() -> None:
        page.list_again()
        host.service.refresh()

    return Workplace(host, _output_folders, page.checkpoint_folders, list_again)


def _output_folders() -> tuple[Path, ...]:
    return tuple(dict.fromkeys((page.built_in_folder(), *webui.adapter_folders())))
