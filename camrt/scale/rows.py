"""Photos in Parquet files: a column of encoded images, alone or as Hugging Face's datasets keep them, {bytes, path}."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from camrt.errors import one_line
from camrt.photo import ImageSource
from camrt.scale.part import Item, Part, failing, kind_of_part, text_of
from camrt.scale.store import file_system, is_url

TOGETHER = 16  # rows that are in memory at once


@kind_of_part
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

    def items(self) -> Iterator[Item]:
        row = self.first
        try:
            with parquet(self.path) as file:
                columns = [self.column, *([self.ids] if self.ids else [])]
                for batch in file.iter_batches(TOGETHER, self.groups, columns):
                    for found in batch.to_pylist():
                        name = f"{self.name}/{row}" if self.ids is None else str(found[self.ids])
                        source = f"{text_of(self.path)}#{row}"
                        yield Item(name, source, _image(found[self.column], source))
                        row += 1
        except (OSError, pa.ArrowException, KeyError) as error:
            told = f"{self.path}: cannot be read from row {row} on ({one_line(error)})."
            yield Item(f"{self.name}#{row}", text_of(self.path), failing(told))


def _image(value: Any, source: str) -> ImageSource:
    if isinstance(value, dict):
        value = value.get("bytes")
    return value if isinstance(value, bytes) else failing(f"{source}: there is no image in this row.")


@contextmanager
def parquet(path: str) -> Iterator[Any]:
    """Open a Parquet file; of what is read, little is kept in memory."""
    if is_url(path):
        files, inside = file_system(path)
        with files.open(inside, "rb") as source, pq.ParquetFile(source) as file:
            yield file
    else:
        with pq.ParquetFile(path, memory_map=False, pre_buffer=False) as file:
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
