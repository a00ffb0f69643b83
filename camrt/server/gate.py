"""The gate: who may come in, how many at once, and for how long."""

from __future__ import annotations

import asyncio
import hmac
import re
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from camrt.server.counters import Counters
from camrt.server.errors import Overloaded, Refusal, TimedOut, TooMany
from camrt.server.options import Options

OPEN = ("/v2/health/", "/static/")  # what needs no token, beside
OPEN_PAGES = ("/", "/docs", "/openapi.json")
HOST = re.compile(r"([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")  # a name or an address, perhaps with a port


class Gate:
    """Lets requests in by the right name, from no other site's page, with a token where one is needed, and not too many.

    Parameters
    ----------
    app : ASGI application
    options : Options
    counters : Counters
    patience : callable
        → seconds after which a client that is sent away may try again.
    """

    def __init__(self, app: ASGIApp, options: Options, counters: Counters, patience: Callable[[], float]):
        self._app, self._options, self._counters, self._patience = app, options, counters, patience
        self._under_way: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        self._check_host(headers)
        _check_origin(scope, headers)
        client = self._client(scope, headers)
        if scope["method"] == "POST":
            await self._pass(client, scope, receive, send)
        else:
            await self._within(scope, receive, send)

    async def _pass(self, client: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in that takes a place."""
        if self._under_way.total() >= self._options.requests:
            raise Overloaded(self._patience())
        if self._options.per_client and self._under_way[client] >= self._options.per_client:
            raise TooMany(self._options.per_client)
        self._under_way[client] += 1
        self._counters.under_way.inc()
        try:
            async with AsyncExitStack() as held:  # what an answer holds, until it was sent
                scope.setdefault("state", {})["held"] = held
                await self._within(scope, receive, send)
        finally:
            self._under_way[client] -= 1
            if not self._under_way[client]:
                del self._under_way[client]
            self._counters.under_way.dec()

    async def _within(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer within the time that a request may take, reading the answer included."""
        try:
            async with asyncio.timeout(self._options.timeout):
                await self._app(scope, receive, send)
        except TimeoutError:
            raise TimedOut(self._options.timeout) from None

    def _check_host(self, headers: Headers) -> None:
        """Refuse other names than the server's: a page elsewhere may have had its own name lead here (DNS rebinding)."""
        found = HOST.fullmatch(headers.get("host", ""))
        name = found.group(1).strip("[]").lower() if found else ""
        if self._options.hosts and name not in self._options.hosts:
            raise Refusal(403, f"This server is not called {name[:100]!r}. Start it with --allow-host to let it be.")

    def _client(self, scope: Scope, headers: Headers) -> str:
        """Return who asks, by token or address; refuse who has no token where one is needed."""
        address = scope["client"][0] if scope.get("client") else ""
        if not self._options.tokens:
            return address
        kind, _, given = headers.get("authorization", "").partition(" ")
        fits = [hmac.compare_digest(given.strip().encode(), token.encode()) for token in self._options.tokens]
        if kind.lower() == "bearer" and any(fits):
            return f"token {fits.index(True)}"
        path = scope["path"]
        if path.startswith(OPEN) or path in OPEN_PAGES:
            return address
        raise Refusal(401, "This server wants a token: Authorization: Bearer TOKEN.", {"WWW-Authenticate": "Bearer"})


def _check_origin(scope: Scope, headers: Headers) -> None:
    """Refuse what another site's page asks in its visitor's name; a link to a page of this server may be followed."""
    if scope["method"] in ("GET", "HEAD") and scope["path"] in OPEN_PAGES:
        return
    own = (f"http://{headers.get('host')}", f"https://{headers.get('host')}")
    elsewhere = any(origin not in own for origin in headers.getlist("origin"))
    if elsewhere or headers.get("sec-fetch-site", "").lower() == "cross-site":
        raise Refusal(403, "Pages of other sites may not ask this server.")
