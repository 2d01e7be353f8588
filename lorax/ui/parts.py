"""What the extension adds to a WebUI's page; each part is built when the page is."""

from __future__ import annotations

from typing import Any

from lorax.hosts.base import Host, page


def add(host: Host) -> None:
    """Register every part with the WebUI; called each time that it loads the extension."""

    def build_tab() -> Any:
        from lorax.ui import tab, webui_place

        return tab.build(webui_place.make(host))

    page.add_tab(build_tab)
