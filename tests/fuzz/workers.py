"""Processes that run cases: each handles many, and is replaced when it dies or takes too long."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path

from exporters import limits
from tests.fuzz.case import FAILED, Outcome, bound_memory, run

SECONDS = 20.0
MEMORY = 4 << 30  # bytes of address space; a worker that has imported everything has taken 1.5 GB of it
MAX_ELEMENTS = 1 << 22  # of one tensor, for images of 16 x 16 pixels
FRESH = 2000  # cases after which a process is replaced
STACK = "stack.txt"


def run_cases(seeds: Sequence[int], jobs: int, folder: Path, seconds: float = SECONDS) -> Iterator[Outcome]:
    """Run the cases of these seeds on `jobs` processes, and yield the outcomes as they come."""
    waiting = iter(seeds)
    workers = [Worker(folder / str(i), seconds) for i in range(min(jobs, len(seeds)))]
    busy = [worker for worker in workers if worker.begin(next(waiting, None))]
    try:
        while busy:
            wait([worker.pipe for worker in busy], timeout=max(0, min(worker.deadline for worker in busy) - time.monotonic()))
            for worker in list(busy):
                outcome = worker.outcome()
                if outcome is not None:
                    yield outcome
                    if not worker.begin(next(waiting, None)):
                        busy.remove(worker)
    finally:
        for worker in workers:
            worker.end()


class Worker:
    """A process that runs one case after the other."""

    def __init__(self, folder: Path, seconds: float):
        self.folder = folder
        self.seconds = seconds
        self._start()

    def _start(self) -> None:
        self.served = 0
        self.folder.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.folder, self.seconds), daemon=True)
        self.process.start()
        theirs.close()
        self.pipe.recv()  # it has imported everything

    def _restart(self) -> None:
        self.end()
        self._start()

    def begin(self, seed: int | None) -> bool:
        """Hand over a seed; tell whether there was one."""
        if seed is None:
            return False
        self.seed, self.began = seed, time.monotonic()
        self.deadline = self.began + self.seconds + 2
        with suppress(BrokenPipeError):
            self.pipe.send(seed)
        return True

    def outcome(self) -> Outcome | None:
        """Return how the case ended; None while it runs."""
        took = time.monotonic() - self.began
        if self.pipe.poll():
            try:
                outcome = self.pipe.recv()
                self.served += 1
                if outcome.word == FAILED or self.served == FRESH:  # whose heap may be what the next case fails by
                    self._restart()
                return outcome
            except EOFError:
                self.process.join()
                code = self.process.exitcode or 0
                end = f"crash: {signal.Signals(-code).name if code < 0 else f'exit {code}'}"
        elif time.monotonic() > self.deadline:
            end = f"hang: more than {self.seconds:g} s"
        else:
            return None
        stack = (self.folder / STACK).read_text(errors="replace")
        self._restart()
        return Outcome(self.seed, "", FAILED, f"{end}\n{stack[-3000:]}", took)

    def end(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(pipe: Connection, folder: Path, seconds: float) -> None:
    """Run the cases that come through the pipe; where a native crash or a hang stood is left in a file."""
    bound_memory(MEMORY)
    limits.MAX_ELEMENTS = MAX_ELEMENTS
    stack = (folder / STACK).open("w+")
    os.dup2(stack.fileno(), 2)
    faulthandler.enable(stack)
    pipe.send(None)
    with suppress(EOFError):
        while True:
            seed = pipe.recv()
            stack.seek(0)
            stack.truncate()
            faulthandler.dump_traceback_later(seconds, file=stack)
            root = Path(tempfile.mkdtemp(dir=folder)) / "case"
            outcome = run(seed, root)
            faulthandler.cancel_dump_traceback_later()
            root.parent.rmdir()
            pipe.send(outcome)
