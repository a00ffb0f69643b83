"""The dispatcher: workers take groups from the line, have them explained in threads, and hand the answers out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from camrt.answer import Prepared
from camrt.question import Question
from camrt.server.errors import Refusal
from camrt.server.line import Line
from camrt.server.model import Loaded
from camrt.server.work import Work


class Dispatcher:
    """Workers on one line, for all models of a server.

    Parameters
    ----------
    workers : int
        Groups that are explained at a time.
    delay : float
        As in `Line`.
    stalled : float
        Seconds after which a group that nobody gets an answer of means that the engine is stuck.
    observe : callable
        Told how many images shared each group.
    """

    def __init__(self, workers: int, delay: float, stalled: float, observe: Callable[[int], None]):
        self._line = Line(delay)
        self._count, self._stalled, self._observe = workers, stalled, observe
        self._threads = ThreadPoolExecutor(workers, "camrt-explain")
        self._workers: list[asyncio.Task[None]] = []
        self._began: dict[int, float] = {}  # when each worker began what it is at
        self._pace = 0.05  # seconds an image took lately

    def start(self) -> None:
        """Let the workers begin; within the event loop."""
        self._workers = [asyncio.create_task(self._work(i)) for i in range(self._count)]

    async def stop(self) -> None:
        """Send the workers home; what waits is not answered."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def waiting(self) -> int:
        """How many images wait."""
        return len(self._line)

    @property
    def patience(self) -> float:
        """Seconds until what waits now will have been answered, about."""
        return (self.waiting + 1) * self._pace / self._count

    @property
    def alive(self) -> bool:
        """Whether the workers work, and none is stuck."""
        longest = max((time.monotonic() - began for began in self._began.values()), default=0.0)
        return bool(self._workers) and not any(w.done() for w in self._workers) and longest < self._stalled

    async def submit(self, loaded: Loaded, question: Question | None, image: Prepared) -> Any:
        """Return the explanation of an image, or without a question its logits.

        Where the caller is cancelled, work that waits is dropped, and so is that which runs once nobody wants any of it.

        Raises
        ------
        CamrtError
            As `Explainer.explain`.
        """
        work = Work(loaded, question, image, asyncio.get_running_loop().create_future())
        self._line.put(work)
        return await work.answer

    async def _work(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        while True:
            group = await self._line.take()
            started = self._began[number] = time.monotonic()
            try:
                answers = await loop.run_in_executor(self._threads, group[0].loaded.model.answers, group)
            except Exception as error:  # a fault of camrt's own must not end the worker
                answers = [error] * len(group)
            finally:
                del self._began[number]
            self._observe(len(group))
            self._pace += 0.1 * ((time.monotonic() - started) / len(group) - self._pace)
            for work, found in zip(group, answers, strict=True):
                self._hand_out(work, found)

    def _hand_out(self, work: Work, found: Any) -> None:
        if not work.wanted:
            return
        if isinstance(found, Exception):
            work.answer.set_exception(found)
        elif found is None:
            work.answer.set_exception(Refusal(503, "The server stopped before there was an answer."))
        else:
            work.answer.set_result(found)
