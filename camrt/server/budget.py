"""A budget of bytes that requests share: what does not fit waits its turn, or is refused."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Budget:
    """So many bytes, taken and given back, by those who wait in the order in which they came.

    Attributes
    ----------
    total, used : int
    """

    def __init__(self, total: int):
        self.total, self.used = total, 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def take_now(self, size: int) -> bool:
        """Take a size if there is room and nobody waits."""
        if self._waiting or self.used + size > self.total:
            return False
        self.used += size
        return True

    @asynccontextmanager
    async def taken(self, size: int) -> AsyncIterator[None]:
        """Take a size, at most the total, when there is room, and give it back at the end."""
        size = min(size, self.total)
        if not self.take_now(size):
            place = asyncio.get_running_loop().create_future()
            self._waiting.append((size, place))
            try:
                await place
            except asyncio.CancelledError:
                if place.done() and not place.cancelled():
                    self.give_back(size)
                else:
                    self._waiting.remove((size, place))
                    self._admit()
                raise
        try:
            yield
        finally:
            self.give_back(size)

    def give_back(self, size: int) -> None:
        """Give a size back, and let in who waits."""
        self.used -= size
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self.used + self._waiting[0][0] <= self.total:
            size, place = self._waiting.popleft()
            if not place.done():
                self.used += size
                place.set_result(None)
