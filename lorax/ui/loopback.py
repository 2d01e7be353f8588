"""A wall around the page: only its own pages may ask it for anything, and it asks nobody else.

Any website that a person visits can send requests to programs on their machine; gradio 3 would answer them. Its page also
loads a script and fonts from elsewhere, which are of no use here.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

NAMES = {"127.0.0.1", "localhost"}
ELSEWHERE = re.compile(rb"<script[^>]*?src=\"https?://[^>]*>\s*</script>|<link[^>]*?href=\"https?://[^>]*>", re.DOTALL)


class Loopback:
    """An ASGI application in front of another."""

    def __init__(self, app: Callable[[Message, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or is_own(scope.get("headers", [])):
            await self._app(scope, receive, Cleaned(send) if scope["type"] == "http" else send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"this page answers only to itself"})


def is_own(headers: list[tuple[bytes, bytes]]) -> bool:
    """The request names this machine, and comes from a page of ours or from no page."""
    found = {name.lower(): value.decode("latin-1") for name, value in headers}
    host, origin = found.get(b"host", ""), found.get(b"origin")
    return urlsplit(f"//{host}").hostname in NAMES and origin in (None, f"http://{host}")


class Cleaned:
    """Sends HTML without what it would load from elsewhere; everything else as it is."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            kind = next((v for k, v in message["headers"] if k.lower() == b"content-type"), b"")
            if kind.startswith(b"text/html"):
                self._start = message
                return
        elif self._start is not None:
            self._body += message.get("body", b"")
            if message.get("more_body"):
                return
            body = ELSEWHERE.sub(b"", self._body)
            headers = [(k, v) for k, v in self._start["headers"] if k.lower() != b"content-length"]
            await self._send({**self._start, "headers": [*headers, (b"content-length", str(len(body)).encode())]})
            message = {"type": "http.response.body", "body": body}
        await self._send(message)
