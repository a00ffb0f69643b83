"""Turns: those who share a device use it one after the other, as long as somebody wants what they compute."""

from __future__ import annotations

import threading


class Stopped(Exception):
    """Nobody wants the result any more; never seen outside."""


class Turns:
    """A lock whose holders, and those who wait for it, can be told to stop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended = False

    def __enter__(self) -> None:
        self._lock.acquire()
        if self._ended:
            self._lock.release()
            raise Stopped

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def go_on(self) -> None:
        """Raise `Stopped` where all is to end."""
        if self._ended:
            raise Stopped

    def end(self) -> None:
        """Stop whoever asks or waits."""
        self._ended = True
