"""The line: work of all clients waits in it, and leaves it in groups of alike work, oldest first."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from camrt.server.work import Work


class Line:
    """Work that waits.

    The oldest work leads each group, so that none waits for ever; work like it joins, in the order in which it came.

    Parameters
    ----------
    delay : float
        Seconds that the oldest work waits for more to join it, where nobody else waits.
    """

    def __init__(self, delay: float):
        self._delay = delay
        self._waiting: deque[Work] = deque()
        self._grown = asyncio.Event()

    def __len__(self) -> int:
        return sum(work.wanted for work in self._waiting)

    def put(self, work: Work) -> None:
        """Let work wait."""
        self._waiting.append(work)
        self._grown.set()

    async def take(self) -> list[Work]:
        """Return the next group, when there is one: at most as many as its model takes together."""
        while True:
            while not self._drop():
                self._grown.clear()
                await self._grown.wait()
            lead = self._waiting[0]
            left = self._delay - (time.perf_counter() - lead.arrived)
            if left <= 0 or len(self._like(lead)) >= lead.loaded.explainer.together:
                return self._leave(self._like(lead))
            self._grown.clear()
            try:
                await asyncio.wait_for(self._grown.wait(), left)
            except TimeoutError:
                pass

    def _drop(self) -> bool:
        """Forget work that nobody wants; tell whether some is left."""
        while self._waiting and not self._waiting[0].wanted:
            self._waiting.popleft()
        return bool(self._waiting)

    def _like(self, lead: Work) -> list[Work]:
        found: list[Work] = []
        for work in self._waiting:
            if len(found) == lead.loaded.explainer.together:
                break
            if work.wanted and work.alike == lead.alike:
                found.append(work)
        return found

    def _leave(self, group: list[Work]) -> list[Work]:
        leaving = set(map(id, group))
        self._waiting = deque(work for work in self._waiting if id(work) not in leaving)
        return group
