"""What the extension adds to a WebUI's page; each part is built when the page is."""

from __future__ import annotations

from typing import Any

from lorax.hosts.base import Host, page
from lorax.ui import accordion, axes, cards_badges, cards_page


def add(host: Host) -> None:
    """Register every part with the WebUI; called each time that it loads the extension."""

    def build_tab() -> Any:
        from lorax.ui import tab, webui_place
        from lorax.ui.running import HostRunner

        return tab.build(webui_place.make(host), HostRunner())

    page.add_tab(build_tab)
    cards_page.install(host)
    cards_badges.install(host)
    axes.install(host)
    accordion.install()


def script() -> type:
    """The always-visible part of txt2img and img2img, for the namespace of the script file."""
    return accordion.script()
