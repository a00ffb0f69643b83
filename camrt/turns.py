"""Turns: those who share a device use it one after the other, as long as somebody wants what they compute."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Stopped(Exception):
    """Nobody wants the result any more; never seen outside."""


class Turns:
    """A lock whose holders, and those who wait for it, can be told to stop.

    Parameters
    ----------
    lock : Lock or Semaphore, optional
        Shared with others who use the same device; by default a lock of its own.
    wanted : callable, optional
        Whether somebody still waits for the result; by default somebody does until `end`.
    """

    def __init__(
        self, lock: threading.Lock | threading.Semaphore | None = None, wanted: Callable[[], bool] = lambda: True
    ) -> None:
        self._lock = lock or threading.Lock()
        self._wanted = wanted
        self._ended = False

    def __enter__(self) -> None:
        self._lock.acquire()
        try:
            self.go_on()
        except Stopped:
            self._lock.release()
            raise

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def go_on(self) -> None:
        """Raise `Stopped` where all is to end."""
        if self._ended or not self._wanted():
            raise Stopped

    def end(self) -> None:
        """Stop whoever asks or waits."""
        self._ended = True
