"""Keep a worker alive: hand it jobs, start it again when it dies, and find the photo that it dies of.

    died ─ try the photos that were under way, one by one ─┬─ one kills: leave it out, and do the job again
                                                           └─ none does: do the job again; thrice dead: one by one

A photo is one that kills when it does so twice, alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import Pipe
from typing import Any

from camrt.errors import BatchError, CamrtError
from camrt.scale.gauge import NOTHING, Gauge
from camrt.scale.job import Broke, Job, Setup, Shard, Trial, Tried

AHEAD = 2  # jobs that a worker has at hand, so that it need not wait for the next
START = 600.0  # seconds that a worker may take to open the model, whatever `stall` says
LAST_WORDS = 10.0  # seconds that a worker which hung up may take to end
TICK = 0.2  # seconds between looks at the gauge
ALONE, MOST_DEATHS = 3, 5  # deaths on one job until its photos are explained one by one, and until that is given up
MOST_KILLERS = 10  # photos of one job that kill while none is known that does not: it is not the photos
END = 1 << 62

Tick = Callable[[int], None]


class Died(Exception):
    """The worker is gone; never seen outside."""


class Keeper:
    """A worker, and another where it dies.

    Parameters
    ----------
    setup : Setup
    """

    def __init__(self, setup: Setup):
        self._setup = setup
        self._gauge = Gauge()
        self._process: subprocess.Popen[bytes] | None = None
        self._link: Any = None
        self._lifeline = -1

    def run(self, jobs: Iterable[Job], tick: Tick = lambda photos: None) -> Iterator[Shard]:
        """Yield a shard for every job, in order.

        Parameters
        ----------
        jobs : iterable of Job
            Taken when the worker is about to need them.
        tick : callable
            Told now and then how many photos of the next shard are done.

        Raises
        ------
        CamrtError
            The worker met what is not of one photo, or dies whatever it is given.
        """
        source, again, at_hand = iter(jobs), deque[Job](), deque[Job]()
        while True:
            while len(at_hand) < AHEAD and not (at_hand and (again or at_hand[0].deaths)):
                job = again.popleft() if again else next(source, None)
                if job is None:
                    break
                at_hand.append(job)
                self._send(job)
            if not at_hand:
                return
            try:
                yield self._receive(lambda: tick(self._done(at_hand[0])))
                at_hand.popleft()
            except Died as death:
                self._mourn(at_hand, str(death))
                again.extendleft(reversed(at_hand))
                at_hand.clear()

    def _mourn(self, jobs: deque[Job], how: str) -> None:
        """Find out which photo of the jobs at hand the worker died of, and see to it that it does not die of it again."""
        first = jobs[0]
        first.deaths += 1
        first.survived |= self._done(first) > len(first.skip)
        known = sum(len(job.skip) for job in jobs)
        trial = self._gauge["trial"]
        suspects = [(first, trial, trial + 1)] if first.alone and trial != NOTHING else self._suspects(jobs)
        for job, start, stop in suspects:
            self._try(job, start, stop)
        if sum(len(job.skip) for job in jobs) == known:
            if first.deaths == MOST_DEATHS:
                raise BatchError(
                    f"The worker died {first.deaths} times on part {first.number} ({how}), and no photo explains it; what it "
                    "said stands above. What is done is kept, and the same command goes on."
                )
            first.alone = first.deaths >= ALONE

    def _suspects(self, jobs: deque[Job]) -> list[tuple[Job, int, int]]:
        """Return which photos of the jobs were under way: from the first to before the last."""
        numbers = [job.number for job in jobs]
        taken_job, done_job = self._gauge["taken_job"], self._gauge["done_job"]
        if taken_job not in numbers:
            return []
        last = numbers.index(taken_job)
        return [
            (job, self._gauge["done"] if job.number == done_job else 0, self._gauge["taken"] if i == last else END)
            for i, job in enumerate(list(jobs)[: last + 1])
        ]

    def _try(self, job: Job, start: int, stop: int) -> None:
        """Explain photos one by one, and note those that the worker dies of twice: once, somebody else may have killed it."""
        while start < stop and (death := self._tried(job, start, stop)) is not None:
            found = self._gauge["trial"]
            if found == NOTHING:
                return
            job.survived |= any(index not in job.skip for index in range(start, found))
            if self._tried(job, found, found + 1) is not None:
                self._accuse(job, found, str(death))
            start = found + 1

    def _tried(self, job: Job, start: int, stop: int) -> Died | None:
        """Return what the worker died of while it explained photos one by one; None where it did not."""
        self._send(Trial(job, start, stop))
        try:
            tried: Tried = self._receive(lambda: None)
        except Died as death:
            return death
        job.survived |= tried.photos > 0
        return None

    def _accuse(self, job: Job, index: int, how: str) -> None:
        job.skip[index] = f"The photo killed its worker: {how}."
        if len(job.skip) >= MOST_KILLERS and not job.survived:
            raise BatchError(
                f"The first {len(job.skip)} photos of part {job.number} all kill the worker ({how}). It is not the photos: see "
                "what this machine lacks, memory for instance. What is done is kept, and the same command goes on."
            )

    def _done(self, job: Job) -> int:
        return max(self._gauge["done"], 0) if self._gauge["done_job"] == job.number else 0

    # --- the process ----------------------------------------------------------------------------------------------------
    def _send(self, task: Job | Trial) -> None:
        if self._process is None:
            self._start()
        try:
            self._link.send(task)
        except OSError:  # it is dead, which `_receive` finds
            pass

    def _receive(self, between: Callable[[], None]) -> Any:
        """Return what the worker sends.

        Raises
        ------
        Died
            It sends nothing more.
        CamrtError
            It sent one.
        """
        seen, since = self._gauge.values(), time.monotonic()
        while not self._has_sent():
            between()
            if seen != (seen := self._gauge.values()):
                since = time.monotonic()
            limit = max(self._setup.stall, START) if self._gauge.is_new else self._setup.stall
            if time.monotonic() - since > limit:
                self.close()
                raise Died(f"nothing was done for {limit:g} s")
        try:
            found = self._link.recv()
        except (EOFError, OSError):
            raise self._bury() from None
        if isinstance(found, Broke):
            self.close()
            raise Died(found.how)
        if isinstance(found, CamrtError):
            self.close()
            raise found
        return found

    def _has_sent(self) -> bool:
        """Wait a moment, and tell whether the worker has sent something, or hung up."""
        try:
            return bool(self._link.poll(TICK))
        except OSError:
            return True

    def _start(self) -> None:
        self._gauge.reset()
        self._link, theirs = Pipe()
        reading, self._lifeline = os.pipe()
        given = (theirs.fileno(), reading, self._gauge.descriptor)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "camrt.scale.worker", *map(str, given)],
            stdin=subprocess.DEVNULL, stdout=2, pass_fds=given, env=environment, start_new_session=True,
        )  # fmt: skip
        theirs.close()
        os.close(reading)
        self._link.send(self._setup)

    def _bury(self) -> Died:
        """Return what the worker died of."""
        assert self._process is not None
        try:
            code = self._process.wait(LAST_WORDS)
        except subprocess.TimeoutExpired:
            code = 0
        self.close()
        return Died(f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}")

    def close(self) -> None:
        """End the worker, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._link.close()
            os.close(self._lifeline)
            self._process = None

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._gauge.close()
