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
    size = _announced(request, options.max_body)
    if not uploads.take_now(size):
        raise Overloaded(1, "The server holds as many uploads as it takes")
    try:
        yield _decompressed(await _received(request, options), request.headers.get("content-encoding", ""), options.max_body)
    finally:
        uploads.give_back(size)


def _announced(request: Request, most: int) -> int:
    """Return how many bytes a body may have."""
    length = request.headers.get("content-length")
    if length is None:
        return most
    if not (length.isascii() and length.isdigit()) or len(length) > 18:
        raise Refusal(400, f"Content-Length must be a number, got {length[:40]!r}.")
    if int(length) > most:
        raise _too_large(most)
    return int(length)


async def _received(request: Request, options: Options) -> bytes:
    parts, size = [], 0
    try:
        async with asyncio.timeout(options.upload_timeout):
            async for part in request.stream():
                size += len(part)
                if size > options.max_body:
                    raise _too_large(options.max_body)
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
