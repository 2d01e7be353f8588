"""``/lorax/internal/badges``: what the page asks while its cards are looked at. FastAPI reads the annotations: no strings."""

# pyright: reportMissingImports=false

import hashlib
import json
from typing import Any

from lorax.hosts.base import Host, interface
from lorax.ui import cards
from lorax.ui.cards_page import forecasts, foresee, named

PATH = "/lorax/internal/badges"


def install(host: Host) -> None:
    """Serve it with the page, also where the API is off."""

    def serve(page: Any, app: Any) -> None:
        if page is not None:
            app.add_api_route(PATH, route(host, app), methods=["GET"], include_in_schema=False)

    interface.on_server(serve)


def route(host: Host, app: Any) -> Any:
    """The handler; behind the page's own login."""
    from fastapi import HTTPException, Request

    def answer(request: Request, have: str = "") -> dict[str, Any]:
        """have: the state that the page shows."""
        if not logged_in(request.cookies, app):
            raise HTTPException(401, "Not authenticated")
        return badges(host, have)

    return answer


def logged_in(cookies: dict[str, str], app: Any) -> bool:
    """The page has no login, or this is one of its users (gradio's own tokens)."""
    return getattr(app, "auth", None) is None or any(value in app.tokens for value in cookies.values())


def badges(host: Host, have: str = "") -> dict[str, Any]:
    """Every badge by the card's name, unless the page shows them already; what is missing is found in the background.

    ``pending``: how many are not known yet.
    """
    found = forecasts(host, list(named(host)))
    pending = sum(forecast is None for forecast in found.values())
    if pending:
        foresee(host)
    made = {name: cards.badge(forecast) for name, forecast in found.items()}
    state = hashlib.sha256(json.dumps(made).encode()).hexdigest()[:16]
    return {"state": state, "pending": pending} | ({} if state == have else {"badges": made})
