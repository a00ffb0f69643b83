"""The journal: every request has an id, an answer and one line in the log, whatever happens."""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from contextvars import ContextVar
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from camrt.server.counters import Counters
from camrt.server.errors import INTERNAL, Refusal, refusal_of

ID = "X-Request-ID"
_GIVEN = re.compile(r"[A-Za-z0-9._-]{1,64}")  # what a client may choose as its id
_PLAIN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
request_id: ContextVar[str] = ContextVar("request_id", default="")
log = logging.getLogger("camrt.server")


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, event, request id, and whatever else was told."""

    def format(self, record: logging.LogRecord) -> str:
        told = {name: value for name, value in vars(record).items() if name not in _PLAIN}
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z"
        entry = {"time": when, "level": record.levelname.lower(), "event": record.getMessage()}
        if request_id.get():
            entry["request"] = request_id.get()
        if record.exc_info:
            entry["trace"] = self.formatException(record.exc_info)
        return json.dumps(entry | told, default=str)


class Seldom(logging.Filter):
    """Lets a logger other than the server's own say one thing a second: a flood of connections must not flood the log."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is written."""
        now = time.monotonic()
        if record.name == log.name or now - self._last.get(record.name, -1.0) >= 1:
            self._last[record.name] = now
            return True
        return False


class Journal:
    """Gives each request its id, answers what goes wrong, counts and logs."""

    def __init__(self, app: ASGIApp, counters: Counters):
        self._app, self._counters = app, counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(ID, "")
        mark = given if _GIVEN.fullmatch(given) else secrets.token_hex(8)
        token = request_id.set(mark)
        started, status, whole = time.perf_counter(), 0, False

        async def answer(message: Message) -> None:
            nonlocal status, whole
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[ID] = mark
            else:
                whole = not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except Exception as error:
            refusal = refusal_of(error)
            if refusal.status == INTERNAL[0]:
                log.error("failed", exc_info=error)
            if status == 0:
                await refused(refusal)(scope, receive, answer)  # one who has left does not see it
            elif not whole:
                status = refusal.status
                raise  # half an answer is out: the connection must close
        finally:
            self._note(scope, status, time.perf_counter() - started)
            request_id.reset(token)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unknown")
        self._counters.requests.labels(route, str(status)).inc()
        self._counters.seconds.labels(route).observe(seconds)
        facts: dict[str, Any] = scope.get("state", {}).get("facts", {})
        level = logging.DEBUG if route.startswith("/v2/health") or route == "/metrics" else logging.INFO
        client = scope["client"][0] if scope.get("client") else None
        told = {"method": scope["method"], "route": route, "status": status, "ms": round(seconds * 1e3, 1), "client": client}
        log.log(level, "request", extra=told | facts)


def refused(refusal: Refusal) -> JSONResponse:
    """Return a refusal as both protocols have it: {"error": text}."""
    return JSONResponse({"error": refusal.text}, refusal.status, refusal.headers)
