"""Photos in Parquet files: a column of encoded images, alone or as Hugging Face's datasets keep them, {bytes, path}."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from camrt.errors import BatchError
from camrt.photo import ImageSource
from camrt.scale.location import opened, reason
from camrt.scale.part import Item, Part, failing, text_of

TOGETHER = 16  # rows that are in memory at once
BUFFER = 1 << 20  # bytes that are read at once of a column; else all of a row group's
DAMAGED = (OSError, ValueError, KeyError, IndexError, pa.ArrowException)  # ValueError: texts that are no UTF-8


@dataclass(frozen=True)
class Rows(Part):
    """Photos of some row groups of a Parquet file.

    Attributes
    ----------
    path : str
        Path or URL.
    name : str
        Goes before the number of the row in a photo's id where there is no column of ids.
    groups : list of int
        Numbers of the row groups.
    first : int
        Number of the first row.
    count : int
    column : str
        Of the images.
    ids : str or None
        The column of ids.
    """

    path: str
    name: str
    groups: list[int]
    first: int
    count: int
    column: str
    ids: str | None = None
    kind: ClassVar[str] = "rows"

    @property
    def photos(self) -> int:
        return self.count

    def names(self) -> Iterator[str]:
        if self.ids is None:
            yield f"{self.name}#{self.first}"
            return
        try:
            for row, found in enumerate(self._rows([self.ids]), self.first):
                yield self._id(found, row)
        except DAMAGED as error:
            raise BatchError(f"{self.path}: the ids cannot be read ({reason(error)}).") from None

    def items(self) -> Iterator[Item]:
        row = self.first
        try:
            for found in self._rows([self.column, *([self.ids] if self.ids else [])]):
                source = f"{text_of(self.path)}#{row}"
                yield Item(self._id(found, row), source, _image(found[self.column], source))
                row += 1
        except DAMAGED as error:
            told = f"{text_of(self.path)}: cannot be read from row {row} on ({reason(error)})."
            yield Item(f"{self.name}#{row}", text_of(self.path), failing(told))

    def _rows(self, columns: list[str]) -> Iterator[dict[str, Any]]:
        with parquet(self.path) as file:
            for group in self.groups:  # one by one: damage to one spares those before it
                for batch in file.iter_batches(TOGETHER, [group], columns):
                    yield from batch.to_pylist()

    def _id(self, found: dict[str, Any], row: int) -> str:
        given = None if self.ids is None else found[self.ids]
        return f"{self.name}/{row}" if given is None else str(given)


def _image(value: Any, source: str) -> ImageSource:
    if isinstance(value, dict):
        value = value.get("bytes")
    return value if isinstance(value, bytes) else failing(f"{source}: there is no image in this row.")


@contextmanager
def parquet(path: str) -> Iterator[Any]:
    """Open a Parquet file; of what is read, little is kept in memory."""
    with opened(path) as source, pq.ParquetFile(source, buffer_size=BUFFER) as file:
        yield file


def rows_parts(path: str, name: str, size: int, column: str, ids: str | None) -> Iterator[Rows]:
    """Yield the parts of a Parquet file: whole row groups, together at least `size` rows, but for the last."""
    with parquet(path) as file:
        groups: list[int] = []
        first = count = 0
        for number in range(file.num_row_groups):
            groups.append(number)
            count += file.metadata.row_group(number).num_rows
            if count >= size:
                yield Rows(path, name, groups, first, count, column, ids)
                groups, first, count = [], first + count, 0
        if count:
            yield Rows(path, name, groups, first, count, column, ids)
