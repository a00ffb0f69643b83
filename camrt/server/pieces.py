"""Answers leave in pieces, as fast as the client reads."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

PIECE = 1 << 16  # bytes, of which the transport keeps one at the most beside its own buffer


class Pieces:
    """Sends every body in pieces, each once the one before has left, so that an answer counts until it was read."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def answer(message: Message) -> None:
            body = message.get("body", b"")
            if message["type"] != "http.response.body" or len(body) <= PIECE:
                await send(message)
                return
            whole = memoryview(body)
            for start in range(0, len(whole), PIECE):
                more = start + PIECE < len(whole) or message.get("more_body", False)
                await send({"type": message["type"], "body": bytes(whole[start : start + PIECE]), "more_body": more})

        await self._app(scope, receive, answer)
