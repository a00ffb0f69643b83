"""Load on a server of this machine: clients that ask one after the other, each on a connection of its own."""

from __future__ import annotations

import http.client
import itertools
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np


@dataclass
class Answers:
    """What clients got.

    Attributes
    ----------
    seconds : list of float
        From sending a request to having its answer, of those that were answered 200.
    statuses : Counter
        How many answers there were of each status; "broken" where there was none.
    took : float
        Seconds from the first request to the last answer.
    """

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int | str] = field(default_factory=Counter)
    took: float = 0.0

    @property
    def rate(self) -> float:
        """Answers of status 200 a second."""
        return len(self.seconds) / self.took

    def percentile(self, q: float) -> float:
        """Milliseconds within which q per cent of them came."""
        return float(np.percentile(self.seconds, q)) * 1e3


def load(
    url: str, photos: Sequence[bytes], clients: int, *, path: str = "/v1/explain", accept: str = "application/json",
    requests: int | None = None, seconds: float | None = None,
) -> Answers:  # fmt: skip
    """Let clients ask about photos in turns, so many requests in all or for so many seconds."""
    where, found, lock = urlsplit(url), Answers(), threading.Lock()
    turns = iter(range(requests)) if requests is not None else itertools.count()
    end = time.monotonic() + (seconds if seconds is not None else 1e9)
    ready = threading.Barrier(clients + 1)

    def client() -> None:
        connection = http.client.HTTPConnection(where.hostname, where.port, timeout=120)
        ready.wait()
        while time.monotonic() < end:
            with lock:
                turn = next(turns, None)
            if turn is None:
                break
            started = time.perf_counter()
            try:
                connection.request("POST", path, photos[turn % len(photos)], {"Accept": accept})
                answer = connection.getresponse()
                answer.read()
                status: int | str = answer.status
            except (OSError, http.client.HTTPException):
                connection.close()
                status = "broken"
            spent = time.perf_counter() - started
            with lock:
                found.statuses[status] += 1
                if status == 200:
                    found.seconds.append(spent)
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    ready.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    found.took = time.perf_counter() - started
    return found


def metric(url: str, name: str) -> float:
    """Return a value that /metrics tells."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{name} "))
