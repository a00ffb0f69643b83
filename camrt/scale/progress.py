"""Tell how a run goes on: a bar for people, a line now and then for logs, JSON for machines."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from camrt.markup import several, words
from camrt.scale.batch import Watch
from camrt.scale.job import Shard
from camrt.scale.listing import Listing
from camrt.scale.manifest import Manifest
from camrt.scale.schema import OK

EVERY = {"bar": 0.2, "log": 30.0, "json": 1.0}  # seconds between two lines
WINDOW = 60.0  # seconds over which the rate is taken
WIDTH = 24  # characters of the bar


class Progress(Watch):
    """Watches a run.

    Parameters
    ----------
    kind : {"bar", "log", "json"}
    say : callable
        Takes a line.
    clock : callable, optional
        Seconds.
    """

    def __init__(self, kind: str, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic):
        self._kind, self._say, self._clock = kind, say, clock
        self._next = float("-inf")
        self._found = self._under_way = 0
        self.shards = 0  # made by this run
        self._manifest: Manifest | None = None
        self._listing: Listing | None = None
        self._marks: deque[tuple[float, int]] = deque()  # when how many photos were done

    def listing(self, photos: int) -> None:
        """So many more photos were found."""
        self._found += photos
        if self._due():
            self._tell(f"Listing: {self._found:,} photos", {"event": "listing", "photos": self._found})

    def begin(self, manifest: Manifest, listing: Listing, lost: int) -> None:
        """The run begins; so many shards that were done are not what they were."""
        self._manifest, self._listing = manifest, listing
        self._marks.append((self._clock(), manifest.photos))
        if self._found:
            found = listing.total or self._found
            self._tell(f"Listed: {several(found, 'photo')}", {"event": "listing", "photos": found})
        if lost:
            gone = f"{several(lost, 'shard')} gone or changed, made again"
            self._tell(gone, {"event": "lost", "shards": lost})
        self._next = float("-inf")
        self._show()

    def tick(self, photos: int) -> None:
        """So many photos of shards under way are done."""
        self._under_way = photos
        self._show()

    def shard(self, shard: Shard) -> None:
        """A shard is in its place."""
        self._under_way = 0
        self.shards += 1
        self._show()

    @property
    def kept(self) -> str:
        """Say what is kept of a run that is stopped now."""
        if self._manifest is None:
            return "nothing is done yet"
        again = f"; {several(self._under_way, 'photo')} of the next will be explained again" * bool(self._under_way)
        return f"{self._manifest.done:,} of {several(self._manifest.parts, 'shard')} are done and kept{again}"

    def _due(self) -> bool:
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + EVERY[self._kind]
        return True

    def _tell(self, text: str, values: Mapping[str, Any]) -> None:
        self._say(json.dumps(values) if self._kind == "json" else text)

    def _show(self) -> None:
        if self._manifest is None or not self._due():
            return
        manifest, done, total = self._manifest, self._manifest.photos + self._under_way, self._total()
        rate = self._rate(done)
        left = (total - done) / rate if total is not None and rate else None
        values = {
            "event": "progress", "photos": done, "total": total, "shards": manifest.done, "parts": manifest.parts,
            "rate": round(rate, 2), "remaining_s": None if left is None else round(left), "outcomes": manifest.outcomes,
        }  # fmt: skip
        self._tell(_line(values), values)

    def _total(self) -> int | None:
        """Return how many photos there are; those of parts not yet read are taken to be as many as others have, on average."""
        assert self._listing is not None
        assert self._manifest is not None
        if self._listing.total is not None:
            return self._listing.total
        return self._manifest.photos * self._manifest.parts // self._manifest.done if self._manifest.done else None

    def _rate(self, done: int) -> float:
        """Return photos a second over the last minute."""
        now = self._clock()
        self._marks.append((now, done))
        while len(self._marks) > 2 and now - self._marks[1][0] > WINDOW:
            self._marks.popleft()
        then, before = self._marks[0]
        return (done - before) / (now - then) if now > then else 0.0


def _line(values: Mapping[str, Any]) -> str:
    """Return progress as a person reads it."""
    done, total = values["photos"], values["total"]
    share = min(1.0, done / total) if total else 0.0
    bar = "█" * round(share * WIDTH) + "░" * (WIDTH - round(share * WIDTH))
    of = f" of {total:,}" if total else ""
    parts = [f"{bar} {share:4.0%}", f"{done:,}{of} photos", f"{values['rate']:,.1f}/s"]
    if values["remaining_s"] is not None:
        parts.append(f"{duration(values['remaining_s'])} left")
    return "  ".join([*parts, *outcomes_told({word: n for word, n in values["outcomes"].items() if word != OK})])


def outcomes_told(outcomes: Mapping[str, int]) -> list[str]:
    """Return counts by outcome as people read them.

    >>> outcomes_told({"ok": 1200, "flat_map": 3})
    ['1,200 ok', '3 flat map']
    """
    return [f"{count:,} {words(word)}" for word, count in outcomes.items()]


def duration(seconds: float) -> str:
    """Return seconds as people say them.

    >>> duration(42), duration(125), duration(7300), duration(200_000)
    ('42 s', '2 min 5 s', '2 h 1 min', '2 d 7 h')
    """
    whole = round(seconds)
    for size, unit, below, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // below} {smaller}"
    return f"{whole} s"
