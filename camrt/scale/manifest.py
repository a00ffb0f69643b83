"""What a dataset consists of: what was asked, and the shards that are done, each with its checksum.

    manifest.json             what was asked, the state, counts
    manifest/00000.jsonl      a line for every shard that is done, 256 a file

A shard counts when it is noted here.  Files are written whole, so that a run can be killed at any moment.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from camrt import __version__
from camrt.errors import BatchError
from camrt.scale.job import Shard
from camrt.scale.schema import OUTCOMES
from camrt.scale.shard import DATA, data_file
from camrt.scale.store import Store, is_temporary

FILE, FOLDER = "manifest.json", "manifest"
KIND, VERSION = "camrt-batch", 1
LINES = 256  # of a file in the folder: one is written anew with every shard
LISTING, RUNNING, STOPPED, FINISHED = "listing", "running", "stopped", "finished"
NOT_DONE = -1
MOST_PARTS = 100_000_000

Line = dict[str, Any]


class Manifest:
    """What was asked of a dataset, and what is done.

    Attributes
    ----------
    asked : dict
        JSON values.
    state : str
        "listing", "running", "stopped" or "finished".
    begun : str
        When, as ISO 8601 writes it.
    """

    def __init__(self, store: Store, asked: Mapping[str, Any], begun: str | None = None):
        self.asked = dict(asked)
        self.state = LISTING
        self._store = store
        self.begun = begun or datetime.now(UTC).isoformat(timespec="seconds")
        self._listed: int | None = None
        self._last: list[Line] = []  # the lines of the file that is being filled, and
        self._number = 0  # its number
        self._make_room(0)

    def _make_room(self, parts: int) -> None:
        self._sizes = np.full(parts, NOT_DONE, np.int64)
        self._photos, self._rows = np.zeros(parts, np.int64), np.zeros(parts, np.int64)
        self._outcomes = np.zeros((parts, len(OUTCOMES)), np.int64)

    @classmethod
    def begin(cls, store: Store, asked: Mapping[str, Any]) -> Manifest:
        """Return the manifest of a new dataset, or of one that was begun with the same question.

        One that never came to explain, as its input was not there for instance, is begun anew.

        Raises
        ------
        BatchError
            There is a dataset of another question, or something else.
        """
        asked = json.loads(json.dumps(asked))
        there = None if store.size(FILE) is None else cls.open(store)
        others = [name for name in store.names("") if not (name.startswith(".") or is_temporary(name))]
        if there is None and others:
            raise BatchError(f"{store} holds other files ({', '.join(others[:5])}). Choose a folder of its own.")
        if there is None or there.state == LISTING:
            there = cls(store, asked)
            there.write()
            return there
        before, now = _flat(there.asked), _flat(asked)
        differing = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        if differing:
            listed = "; ".join(f"{key} was {_short(before.get(key))}, is {_short(now.get(key))}" for key in differing)
            raise BatchError(
                f"{store} holds a dataset of another question: {listed}. Ask the same again to go on with it, or choose "
                "another folder."
            )
        return there

    @classmethod
    def open(cls, store: Store) -> Manifest:
        """Return the manifest of a dataset.

        Raises
        ------
        BatchError
            There is none, or it is damaged.
        """
        data = store.read(FILE)
        if data is None:
            raise BatchError(f"{store} has no {FILE}, so it is no dataset that camrt batch wrote.")
        try:
            values = json.loads(data)
            if values["kind"] != KIND or values["version"] != VERSION:
                raise ValueError(f"it is a {values['kind']!r} of version {values['version']!r}")
            manifest = cls(store, values["asked"], values["begun"])
            manifest.state, manifest._listed = values["state"], values["listed"]
            if not (isinstance(values["begun"], str) and 0 <= values["parts"] <= MOST_PARTS):
                raise ValueError(f"it was begun {values['begun']!r} and has {values['parts']!r} parts")
            manifest._make_room(values["parts"])
            for number, lines in manifest._files():
                for line in lines:
                    manifest._count(line)
                manifest._number, manifest._last = number, lines
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, OverflowError) as error:
            raise BatchError(
                f"{store}/{FILE}, or what belongs to it, is damaged ({type(error).__name__}: {error}). Begin again in another "
                "folder."
            ) from None
        return manifest

    def _files(self) -> Iterator[tuple[int, list[Line]]]:
        """Yield the files of lines with their numbers."""
        for name in self._store.names(FOLDER):
            if name.endswith(".jsonl"):
                data = self._store.read(f"{FOLDER}/{name}") or b""
                yield int(name.partition(".")[0]), [json.loads(line) for line in data.splitlines()]

    # --- what is done ---------------------------------------------------------------------------------------------------
    @property
    def parts(self) -> int:
        """Return how many parts there are."""
        return len(self._sizes)

    @property
    def done(self) -> int:
        """Return how many parts are done."""
        return int((self._sizes != NOT_DONE).sum())

    @property
    def photos(self) -> int:
        """Return how many photos are done."""
        return int(self._photos.sum())

    @property
    def rows(self) -> int:
        """Return how many rows there are."""
        return int(self._rows.sum())

    @property
    def outcomes(self) -> dict[str, int]:
        """Return the rows by outcome; what did not happen is left out."""
        counts = zip(OUTCOMES, self._outcomes.sum(axis=0).tolist(), strict=True)
        return {word: count for word, count in counts if count}

    def is_done(self, part: int) -> bool:
        """Tell whether a part is done."""
        return bool(self._sizes[part] != NOT_DONE)

    def missing(self) -> Iterator[int]:
        """Yield the parts that are not done, in order."""
        return (part for part in range(self.parts) if not self.is_done(part))

    def _count(self, line: Line) -> None:
        part = line["part"]
        if not (isinstance(part, int) and 0 <= part < self.parts):
            raise ValueError(f"it has no part {part!r}")
        self._sizes[part], self._photos[part], self._rows[part] = line["bytes"], line["photos"], line["rows"]
        self._outcomes[part] = [line["outcomes"].get(word, 0) for word in OUTCOMES]

    # --- what changes ---------------------------------------------------------------------------------------------------
    def set_parts(self, parts: int, photos: int | None) -> None:
        """Note, once, how many parts there are, and how many photos, where that is known."""
        assert self.state == LISTING, "a dataset keeps the parts that it began with"
        self._make_room(parts)
        self._listed = photos
        self.write(RUNNING)

    def add(self, shard: Shard) -> None:
        """Note a shard that is in its place."""
        line: Line = {
            "part": shard.part, "file": data_file(shard.part), "sha256": shard.sha256, "bytes": shard.size,
            "photos": shard.photos, "rows": shard.rows, "outcomes": shard.outcomes, "seconds": round(shard.seconds, 3),
        }  # fmt: skip
        if len(self._last) == LINES:
            self._number, self._last = self._number + 1, []
            self.write()
        self._last.append(line)
        self._count(line)  # first: what is noted, but not counted when Ctrl-C comes, would be tidied away
        self._write_lines(self._number, self._last)

    def forget_lost(self, *, verify: bool = False) -> int:
        """Forget shards that are gone or have another size than was noted, and return how many.

        Parameters
        ----------
        verify : bool, default False
            And those whose bytes have another checksum.
        """
        sizes = self._store.sizes(DATA)  # one question for all: object stores take their time for each

        def is_lost(line: Line) -> bool:
            file = data_file(line["part"])
            gone = sizes.get(file.removeprefix(f"{DATA}/")) != line["bytes"]
            return gone or (verify and self._sha256(file) != line["sha256"])

        lost = 0
        for number, lines in list(self._files()):
            kept = [line for line in lines if not is_lost(line)]
            if len(kept) < len(lines):
                for line in lines:
                    if line not in kept:
                        self._count({"part": line["part"], "bytes": NOT_DONE, "photos": 0, "rows": 0, "outcomes": {}})
                self._write_lines(number, kept)
                lost += len(lines) - len(kept)
            if number == self._number:
                self._last = kept
        return lost

    def _sha256(self, file: str) -> str:
        return hashlib.sha256(self._store.read(file) or b"").hexdigest()

    def write(self, state: str | None = None) -> None:
        """Write manifest.json, and perhaps a new state."""
        self.state = state or self.state
        values = {
            "kind": KIND, "version": VERSION, "camrt": __version__, "state": self.state, "begun": self.begun,
            "parts": self.parts, "listed": self._listed, "asked": self.asked,
            "done": {"shards": self.done, "photos": self.photos, "rows": self.rows, "outcomes": self.outcomes},
        }  # fmt: skip
        self._store.write(FILE, (json.dumps(values, indent=1) + "\n").encode())

    def _write_lines(self, number: int, lines: list[Line]) -> None:
        self._store.write(f"{FOLDER}/{number:05d}.jsonl", "".join(f"{json.dumps(line)}\n" for line in lines).encode())


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by the names of all of them.

    >>> _flat({"top": 2, "parameters": {"seed": 0}})
    {'top': 2, 'parameters.seed': 0}
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
