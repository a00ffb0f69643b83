"""Work goes on as long as somebody waits for it, and no longer than a request wishes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from starlette.requests import Request

from camrt.server.errors import Gone, TimedOut

Result = TypeVar("Result")


async def unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Return what a coroutine gives, or cancel it when the client leaves; the body must have been read.

    Raises
    ------
    Gone
        The client has left.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Gone
        return await working
    finally:
        for task in (working, leaving):
            task.cancel()


@asynccontextmanager
async def within(seconds: float | None, since: float) -> AsyncIterator[None]:
    """End what takes longer than a request wishes, since a time of the event loop.

    Raises
    ------
    TimedOut
        It took longer.
    """
    if seconds is None:
        yield
        return
    try:
        async with asyncio.timeout_at(since + seconds):
            yield
    except TimeoutError:
        raise TimedOut(seconds) from None


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
