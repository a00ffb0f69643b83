"""uvicorn's HTTP protocol, with bounds on what a connection may cost those who come by others."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from camrt.server.options import Options

IDLE = 4  # connections of one address for each request that it may have under way
SLICE, OF_BODY = 2048, 1 << 16  # bytes that are parsed at a time: of the smallest chunks some milliseconds; of plain bodies


def bounded(options: Options) -> type[H11Protocol]:
    """Return the protocol: bounded are the time for a head and for reading an answer, and the bytes that are parsed at once.

    A connection beyond the server's limit, or that of one address, is closed at once.
    """

    class Bounded(H11Protocol):
        _patience: asyncio.TimerHandle | None = None  # for a head
        _draining: asyncio.TimerHandle | None = None  # for reading an answer

        def connection_made(self, transport: Any) -> None:
            self._waiting = bytearray()
            self._parsing = False
            super().connection_made(transport)
            if len(self.connections) > options.connections + 1 or self._one_of_too_many():
                transport.abort()
            else:
                self._await_head()

        def _one_of_too_many(self) -> bool:
            """Tell whether the client has more connections than its requests can need."""
            address = self.client and self.client[0]
            peers = (getattr(other, "client", None) for other in self.connections)
            same = sum(1 for peer in peers if peer and peer[0] == address)
            return bool(options.per_client) and same > IDLE * options.per_client

        def data_received(self, data: bytes) -> None:
            self._waiting += data
            if not self._parsing:
                self._parse()

        def _parse(self) -> None:
            """Parse a slice; what is left waits until others had their turn."""
            self._parsing = False
            if self.transport.is_closing():
                self._waiting.clear()
                return
            has_length = self.cycle is not None and any(name == b"content-length" for name, _ in self.headers)
            size = OF_BODY if has_length and self.cycle.more_body else SLICE
            part = bytes(self._waiting[:size])
            del self._waiting[:size]
            super().data_received(part)
            if self._waiting:
                self._parsing = True
                self.transport.pause_reading()
                self.loop.call_soon(self._parse)
            elif not (self.flow.read_paused or self.transport.is_closing()):
                self.transport.resume_reading()
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
            for timer in ("_patience", "_draining"):
                self._stop(timer)
            super().connection_lost(exc)

        def _stop(self, timer: str) -> None:
            handle = getattr(self, timer)
            if handle is not None:
                handle.cancel()
                setattr(self, timer, None)

    return Bounded
