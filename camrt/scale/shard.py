"""Write the rows of one part as a Parquet file, beside its place."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from camrt.scale.job import Shard, shard_name
from camrt.scale.schema import SCHEMA, TEXTS, Row, table
from camrt.scale.store import Store, beside

DATA, OVERLAYS = "data", "overlays"
ROWS_AT_ONCE = 1024  # of a row group, and in memory


def data_file(part: int) -> str:
    """Return where a part's shard stands."""
    return f"{DATA}/{shard_name(part)}.parquet"


def overlay_folder(part: int) -> str:
    """Return where a part's overlays stand."""
    return f"{OVERLAYS}/{shard_name(part)}"


def part_of(name: str) -> int | None:
    """Return the part whose shard, or folder of overlays, has a name; None where it is none of these.

    >>> part_of("part-000012.parquet"), part_of("part-000012"), part_of("notes.txt")
    (12, 12, None)
    """
    number = name.removeprefix("part-").removesuffix(".parquet")
    return int(number) if number.isdecimal() and name.startswith(shard_name(int(number))) else None


class ShardWriter:
    """Rows of one part on their way into a file.

    Parameters
    ----------
    store : Store
    part : int
    about : mapping
        What the file says of itself: its key "camrt", as JSON.
    """

    def __init__(self, store: Store, part: int, about: Mapping[str, Any]):
        mark = beside(f".{shard_name(part)}")
        self._store, self._part, self._file = store, part, f"{DATA}/{mark}"
        self._overlays = f"{OVERLAYS}/{mark}"
        self._stack = ExitStack()
        self._sink = Hashing(self._stack.enter_context(store.create(self._file)))
        schema = SCHEMA.with_metadata({"camrt": json.dumps(about)})
        self._writer = pq.ParquetWriter(self._sink, schema, compression="zstd", use_dictionary=TEXTS)
        self._waiting: list[Row] = []
        self._outcomes = Counter[str]()
        self._pictures: list[str] = []
        self._started = time.perf_counter()
        self._photos = self._rows = 0

    def add(self, name: str, source: str, rows: Sequence[Row], pictures: Sequence[tuple[str, bytes]] = ()) -> None:
        """Add the rows of a photo, and its overlays by their names."""
        for row in rows:
            row.values.update(id=name, source=source)
            self._outcomes[row.values["outcome"]] += 1
        for row, (file, data) in zip(rows, pictures, strict=False):
            with self._store.create(f"{self._overlays}/{file}") as sink:
                sink.write(data)
            row.values["overlay"] = f"{overlay_folder(self._part)}/{file}"
            self._pictures.append(file)
        self._photos += 1
        self._waiting += rows
        if len(self._waiting) >= ROWS_AT_ONCE:
            self._write(table(self._waiting))
            self._waiting = []

    def add_table(self, rows: pa.Table, photos: int, outcomes: Mapping[str, int]) -> None:
        """Add rows as they are in the file."""
        self._photos += photos
        self._outcomes.update(outcomes)
        self._write(rows)

    def _write(self, rows: pa.Table) -> None:
        self._rows += len(rows)
        self._writer.write_table(rows)

    def close(self) -> Shard:
        """Complete the file, and return what it holds."""
        try:
            if self._waiting:
                self._write(table(self._waiting))
            self._writer.close()
            self._stack.close()
        except BaseException:
            self.abandon()
            raise
        return Shard(
            part=self._part, file=self._file, overlays=self._overlays if self._pictures else None,
            sha256=self._sink.digest.hexdigest(), size=self._sink.size, photos=self._photos, rows=self._rows,
            outcomes=dict(sorted(self._outcomes.items())), seconds=time.perf_counter() - self._started,
        )  # fmt: skip

    def abandon(self) -> None:
        """Remove what was written."""
        self._stack.close()
        for name in (self._file, self._overlays):
            self._store.remove(name)


class Hashing:
    """A file that tells the SHA-256 and the size of what was written to it."""

    closed = False

    def __init__(self, file: BinaryIO):
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self.digest.update(view)
        self.size += view.nbytes
        self._file.write(view)
        return view.nbytes

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        """Do nothing: the file is flushed when it is complete."""

    def close(self) -> None:
        """Do nothing: who opened the file closes it."""

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False
