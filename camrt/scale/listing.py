"""What was found to be explained, written down once: a run that goes on explains what it began with, whatever was added since.

listing/00000.jsonl.gz    a hundred parts, each compressed by itself: zcat shows them all
listing/index.jsonl       where each part stands, and how many photos it has; written last
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any

import numpy as np

from camrt.errors import BatchError
from camrt.scale.order import Once, digest_of
from camrt.scale.part import Part, read_part
from camrt.scale.paths import Paths
from camrt.scale.store import Store

FOLDER = "listing"
INDEX = f"{FOLDER}/index.jsonl"
PARTS_PER_FILE = 100
UNKNOWN = -1  # photos of a part that shows only when it is read


class Listing:
    """The parts of a dataset's input, of which only their places are in memory.

    Attributes
    ----------
    photos : ndarray of shape (parts,), int64
        Photos of each part; −1 where that shows only when it is read.
    """

    def __init__(self, store: Store, places: np.ndarray):
        self._store = store
        self._places = places  # (parts, 2): offset and length in its file
        self.photos = places[:, 2]

    def __len__(self) -> int:
        return len(self._places)

    @property
    def total(self) -> int | None:
        """Return how many photos there are; None where that shows only when they are read."""
        return None if (self.photos == UNKNOWN).any() else int(self.photos.sum())

    def part(self, number: int) -> Part:
        """Return a part.

        Raises
        ------
        BatchError
            What was written down is damaged.
        """
        offset, length, _ = map(int, self._places[number])
        return read_part_at(self._store, number, offset, length)

    def place(self, number: int) -> tuple[int, int]:
        """Return where in its file a part stands: offset and length."""
        offset, length, _ = map(int, self._places[number])
        return offset, length


def read_part_at(store: Store, number: int, offset: int, length: int) -> Part:
    """Return a part by its place in its file."""
    data = store.read(_file_of(number), offset, length)
    try:
        return read_part(json.loads(gzip.decompress(data or b"")))
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise BatchError(f"{store}/{_file_of(number)} is damaged ({error}). Begin again in another folder.") from None


def open_listing(store: Store) -> Listing | None:
    """Return what was written down; None where that was not finished."""
    data = store.read(INDEX)
    if data is None:
        return None
    places = [_read_place(line) for line in data.splitlines()]
    return Listing(store, np.array(places, np.int64).reshape(-1, 3))


def _read_place(line: bytes) -> tuple[int, int, int]:
    found: dict[str, Any] = json.loads(line)
    return found["offset"], found["length"], UNKNOWN if found["photos"] is None else found["photos"]


def write_listing(store: Store, parts: Iterable[Part], step: Callable[[int], None] = lambda photos: None) -> Listing:
    """Write parts down, and return them.

    Parameters
    ----------
    store : Store
    parts : iterable of Part
    step : callable
        Told how many photos were found since.

    Raises
    ------
    BatchError
        There is nothing, or two photos have one id.
    """
    store.remove(FOLDER)
    once = Once()
    lines: list[str] = []
    source = iter(parts)
    while (first := next(source, None)) is not None:
        with store.create(_file_of(len(lines))) as file:
            offset = 0
            for part in chain([first], islice(source, PARTS_PER_FILE - 1)):
                data = gzip.compress(f"{json.dumps(part.to_json())}\n".encode(), 1, mtime=0)
                file.write(data)
                lines.append(json.dumps({"offset": offset, "length": len(data), "photos": part.photos}))
                offset += len(data)
                for name in _names(part):
                    once.add(name)
                step(part.photos or 0)
    if not lines:
        raise BatchError("There is nothing to explain: the input lists no photo.")
    places = np.array([_read_place(line.encode()) for line in lines], np.int64)
    listing = Listing(store, places)
    _check_unique(listing, once.repeated())
    store.write(INDEX, "".join(f"{line}\n" for line in lines).encode())
    return listing


def _names(part: Part) -> Iterator[str]:
    """Yield what must stand once: the ids of photos that have paths, and stretches of archives."""
    if isinstance(part, Paths):
        yield from (name for name, _ in part.listed)
    else:
        values = part.to_json()
        yield json.dumps([values["name"], values.get("offset", values.get("first"))])


def _check_unique(listing: Listing, repeated: set[bytes]) -> None:
    if not repeated:
        return
    names = (name for number in range(len(listing)) for name in _names(listing.part(number)))
    shown = ", ".join(dict.fromkeys(islice((repr(n) for n in names if digest_of(n) in repeated), 20)))
    raise BatchError(
        f"Each photo needs an id of its own, and {len(repeated):,} stand more than once: {shown[:300]}. List each photo once, "
        "or give a list with a column of ids (--id-column)."
    )


def _file_of(number: int) -> str:
    return f"{FOLDER}/{number // PARTS_PER_FILE:05d}.jsonl.gz"
