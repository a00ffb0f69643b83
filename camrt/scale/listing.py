"""What was found to be explained, written down once: a run that goes on explains what it began with, whatever was added since.

    listing/00000.jsonl.gz    a hundred parts, each compressed by itself: zcat shows them all
    listing/index.jsonl       where each part stands, and how many photos it has; written last

Only the places of parts are ever in memory, so that a listing of millions streams.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from itertools import chain, islice
from typing import Any

import numpy as np

from camrt.errors import BatchError, one_line
from camrt.scale.order import Once, digest_of
from camrt.scale.part import Part
from camrt.scale.paths import Paths
from camrt.scale.rows import Rows
from camrt.scale.store import Store
from camrt.scale.tar import Tar

FOLDER = "listing"
INDEX = f"{FOLDER}/index.jsonl"
PARTS_PER_FILE = 100
UNKNOWN = -1  # photos of a part that shows only when it is read
DAMAGED = (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError)  # of what cannot be read again
KINDS: dict[str, type[Part]] = {part.kind: part for part in (Paths, Rows, Tar)}

Place = tuple[int, int, int]  # of a part: offset and length in its file, photos


class Listing:
    """The parts of a dataset's input, of which only their places are in memory.

    Attributes
    ----------
    photos : ndarray of shape (parts,), int64
        Photos of each part; −1 where that shows only when it is read.
    """

    def __init__(self, store: Store, places: np.ndarray):
        self._store = store
        self._places = places  # (parts, 3): offset and length in its file, photos
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
        return read_part_at(self._store, number, *self.place(number))

    def place(self, number: int) -> tuple[int, int]:
        """Return where in its file a part stands: offset and length."""
        offset, length, _ = map(int, self._places[number])
        return offset, length


def read_part_at(store: Store, number: int, offset: int, length: int) -> Part:
    """Return a part by its place in its file.

    Raises
    ------
    BatchError
        What was written down is damaged.
    """
    data = store.read(_file_of(number), offset, length)
    try:
        return read_part(json.loads(gzip.decompress(data or b"")))
    except DAMAGED as error:
        raise _damaged(f"{store}/{_file_of(number)}", error) from None


def read_part(values: Mapping[str, Any]) -> Part:
    """Return the part that `Part.to_json` wrote down."""
    fields = dict(values)
    return KINDS[fields.pop("kind")](**fields)


def open_listing(store: Store) -> Listing | None:
    """Return what was written down; None where that was not finished.

    Raises
    ------
    BatchError
        It is damaged.
    """
    data = store.read(INDEX)
    if data is None:
        return None
    try:
        places = [_read_place(line) for line in data.splitlines()]
        return Listing(store, np.array(places, np.int64).reshape(-1, 3))
    except DAMAGED as error:
        raise _damaged(f"{store}/{INDEX}", error) from None


def _damaged(file: str, error: Exception) -> BatchError:
    return BatchError(f"{file} is damaged ({type(error).__name__}: {one_line(error)}). Begin again in another folder.")


def _read_place(line: bytes) -> Place:
    found = json.loads(line)
    return found["offset"], found["length"], UNKNOWN if found["photos"] is None else found["photos"]


def _write_place(place: Place) -> str:
    offset, length, photos = place
    return json.dumps({"offset": offset, "length": length, "photos": None if photos == UNKNOWN else photos}) + "\n"


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
    places: list[Place] = []
    source = iter(parts)
    with Once() as once:
        while (first := next(source, None)) is not None:
            with store.create(_file_of(len(places))) as file:
                offset = 0
                for part in chain([first], islice(source, PARTS_PER_FILE - 1)):
                    data = gzip.compress(f"{json.dumps(part.to_json())}\n".encode(), 1, mtime=0)
                    file.write(data)
                    places.append((offset, len(data), UNKNOWN if part.photos is None else part.photos))
                    offset += len(data)
                    for name in part.names():
                        once.add(name)
                    step(part.photos or 0)
        if not places:
            raise BatchError("There is nothing to explain: the input lists no photo.")
        listing = Listing(store, np.array(places, np.int64))
        _check_unique(listing, once.repeated())
    store.write(INDEX, "".join(map(_write_place, places)).encode())
    return listing


def _check_unique(listing: Listing, repeated: set[bytes]) -> None:
    if not repeated:
        return
    names = (name for number in range(len(listing)) for name in listing.part(number).names())
    shown = ", ".join(dict.fromkeys(islice((repr(n) for n in names if digest_of(n) in repeated), 20)))
    raise BatchError(
        f"Each photo needs an id of its own, and {len(repeated):,} stand more than once: {shown[:300]}. List each photo once, "
        "or give a list with a column of ids (--id-column)."
    )


def _file_of(number: int) -> str:
    return f"{FOLDER}/{number // PARTS_PER_FILE:05d}.jsonl.gz"
