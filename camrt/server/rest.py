"""The rest of a body: what was not read when its request is answered is thrown away first, or the connection closed."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PATIENCE = 0.25  # seconds for the rest of a body
MOST = 1 << 20  # bytes of it


class Rest:
    """Lets a client send the rest of its body before it is refused, as otherwise the answer may be lost on the way."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else {}
        if not ("content-length" in headers or "transfer-encoding" in headers):
            await self._app(scope, receive, send)
            return
        ended = False

        async def read() -> Message:
            nonlocal ended
            message = await receive()
            ended = message["type"] == "http.disconnect" or not message.get("more_body", False)
            return message

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start" and not ended:
                await _thrown_away(read)
                if not ended:
                    MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self._app(scope, read, answer)


async def _thrown_away(read: Receive) -> None:
    """Read what is left of a body, as far as it comes soon."""
    size = 0
    try:
        async with asyncio.timeout(PATIENCE):
            while size <= MOST:
                message = await read()
                size += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        pass
