"""A request's body, read within bounds of size and time, and its pictures decoded within the server's budgets."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request

from camrt.server.budget import Budget
from camrt.server.errors import Gone, Overloaded, Refusal
from camrt.server.options import Options

WINDOW = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # zlib's wbits


@asynccontextmanager
async def read_body(request: Request, options: Options, uploads: Budget) -> AsyncIterator[bytes]:
    """Give a request's body, decompressed, and hold its room in the budget meanwhile.

    Raises
    ------
    Refusal
        408 where it comes too slowly, 411, 413 and 415 where it is of no or too great length, or of an unknown encoding.
    Overloaded
        The budget is used up.
    """
    _check_length(request, options.max_body)
    share = Share(uploads)
    try:
        body = await _received(request, options, share)
        plain = _decompressed(body, request.headers.get("content-encoding", ""), options.max_body)
        share.grow(len(plain) - len(body))
        yield plain
    finally:
        share.end()


class Share:
    """What one request holds of a budget: of the bytes that have come, not of those that were announced."""

    def __init__(self, budget: Budget):
        self._budget, self._size = budget, 0

    def grow(self, size: int) -> None:
        """Hold more.

        Raises
        ------
        Overloaded
            The budget is used up.
        """
        if size > 0 and not self._budget.take_now(size):
            raise Overloaded(1, "The server holds as many uploads as it takes")
        self._size += max(size, 0)

    def end(self) -> None:
        """Give everything back."""
        self._budget.give_back(self._size)
        self._size = 0


def _check_length(request: Request, most: int) -> None:
    """Refuse a length that is none or too great, and one beside a transfer encoding, which proxies may read otherwise."""
    length = request.headers.get("content-length")
    if length is None:
        return
    if "transfer-encoding" in request.headers:
        raise Refusal(400, "A body has a Content-Length or a Transfer-Encoding, not both.", {"Connection": "close"})
    if not (length.isascii() and length.isdigit()) or len(length) > 18:
        raise Refusal(400, f"Content-Length must be a number, got {length[:40]!r}.")
    if int(length) > most:
        raise _too_large(most)


async def _received(request: Request, options: Options, share: Share) -> bytes:
    parts, size = [], 0
    try:
        async with asyncio.timeout(options.upload_timeout):
            async for part in request.stream():
                size += len(part)
                if size > options.max_body:
                    raise _too_large(options.max_body)
                share.grow(len(part))
                parts.append(part)
    except TimeoutError:
        raise Refusal(408, f"The body did not come within {options.upload_timeout:g} s.", {"Connection": "close"}) from None
    except ClientDisconnect:
        raise Gone from None
    return b"".join(parts)


def _decompressed(body: bytes, encoding: str, most: int) -> bytes:
    """Return the body as it was before its Content-Encoding; never more than `most` bytes of it."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in WINDOW:
        raise Refusal(415, f"Content-Encoding must be gzip or deflate, got {encoding[:40]!r}.")
    unpacker = zlib.decompressobj(WINDOW[encoding])
    try:
        plain = unpacker.decompress(body, most + 1)
    except zlib.error as error:
        raise Refusal(400, f"The body is no {encoding}: {error}.") from None
    if len(plain) > most:
        raise _too_large(most)
    if not unpacker.eof:
        raise Refusal(400, f"The body's {encoding} is cut short.")
    return plain


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"A body may have {most:,} bytes. Shrink the photo, or send fewer.", {"Connection": "close"})
