"""Run a server: bind, serve, and end in order."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from camrt.errors import ParameterError
from camrt.server.app import create_app
from camrt.server.journal import JsonLines
from camrt.server.options import Options
from camrt.server.service import Service

KEEP_ALIVE = 30  # seconds that an idle connection stays open


def serve(service: Service, host: str, port: int, started: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; then finish what was accepted.

    Parameters
    ----------
    service : Service
    host, port : str, int
        Where to listen; port 0 takes a free one.
    started : callable
        Told the URL once requests are answered.

    Raises
    ------
    CamrtError
        A model cannot be opened.
    ParameterError
        The address cannot be bound.
    """
    _log_to_stderr()
    with bound(host, port) as sock:  # before models are loaded, which takes a while
        service.load()
        address = f"[{host}]" if ":" in host else host
        url = f"http://{address}:{sock.getsockname()[1]}/"
        server = _Server(config_of(service), lambda: started(url))
        for end in (signal.SIGTERM, signal.SIGINT):
            signal.signal(end, lambda *_: None)  # uvicorn's own handlers end it; then it raises the signal once more
        server.run([sock])


class _Server(uvicorn.Server):
    """A server that says when it answers."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]):
        super().__init__(config)
        self._tell = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        self._tell()


def bound(host: str, port: int) -> socket.socket:
    """Return a socket that is bound."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ParameterError(f"{host} is no address to listen at: {error.strerror or error}.") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise ParameterError(f"{host}:{port} cannot be bound: {error.strerror}. Take another --port.") from None
    return sock


def config_of(service: Service) -> uvicorn.Config:
    """Return how uvicorn serves a service."""
    options = service.options
    return uvicorn.Config(
        create_app(service), http=_bounded(options), ws="none", log_config=None, access_log=False,
        server_header=False, date_header=True, limit_concurrency=options.connections, timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=round(options.timeout) + 5, lifespan="on", proxy_headers=False,
    )  # fmt: skip


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("camrt.server", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO if name == "camrt.server" else logging.WARNING)


def _bounded(options: Options) -> type[H11Protocol]:
    """Return uvicorn's protocol with bounds on how long a client may take to send a head, and to read what it is sent."""

    class Bounded(H11Protocol):
        _patience: asyncio.TimerHandle | None = None
        _draining: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._await_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop("_patience")
            elif self._patience is None:
                self._await_head()

        def _await_head(self) -> None:
            self._patience = self.loop.call_later(options.header_timeout, self.transport.abort)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._stop("_patience")  # uvicorn's own keep-alive takes over

        def pause_writing(self) -> None:
            super().pause_writing()
            self._draining = self.loop.call_later(options.timeout, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._stop("_draining")

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop("_patience")
            self._stop("_draining")
            super().connection_lost(exc)

        def _stop(self, timer: str) -> None:
            handle = getattr(self, timer)
            if handle is not None:
                handle.cancel()
                setattr(self, timer, None)

    return Bounded
