"""Run a server: bind, serve, and end in order."""

from __future__ import annotations

import logging
import resource
import signal
import socket
import sys
from collections.abc import Callable

import uvicorn

from camrt.errors import ParameterError
from camrt.server.app import create_app
from camrt.server.journal import JsonLines, Seldom
from camrt.server.protocol import bounded
from camrt.server.service import Service

OTHER_FILES = 256  # that the process has open beside its connections
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
    _allow_files(service.options.connections)
    with bound(host, port) as sock:  # before models are loaded, which takes a while
        service.load()
        address = f"[{host}]" if ":" in host else host
        url = f"http://{address}:{sock.getsockname()[1]}/"
        server = _Server(config_of(service), lambda: started(url))
        for end in (signal.SIGTERM, signal.SIGINT):  # before uvicorn's own handlers, and when it raises the signal once more
            signal.signal(end, lambda *_: setattr(server, "should_exit", True))
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
        sock.listen()  # so that a second server hears now that the port is taken; clients wait until models are loaded
    except OSError as error:
        sock.close()
        raise ParameterError(f"{host}:{port} cannot be bound: {error.strerror}. Take another --port.") from None
    return sock


def config_of(service: Service) -> uvicorn.Config:
    """Return how uvicorn serves a service."""
    options = service.options
    return uvicorn.Config(
        create_app(service), http=bounded(options), ws="none", log_config=None, access_log=False,
        server_header=False, date_header=True, limit_concurrency=options.connections, timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=round(options.timeout) + 5, lifespan="on", proxy_headers=False,
    )  # fmt: skip


def _allow_files(connections: int) -> None:
    """Let the process have as many files open as connections need, or say that it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OTHER_FILES
    if soft < wanted and hard != resource.RLIM_INFINITY and hard < wanted:
        raise ParameterError(
            f"{connections} connections need {wanted} open files; {hard} are allowed: ulimit -Hn {wanted}."
        )
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    handler.addFilter(Seldom())
    for name, level in {"camrt.server": logging.INFO, "uvicorn": logging.ERROR, "asyncio": logging.ERROR}.items():
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
