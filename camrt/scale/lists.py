"""Lists of photos: text with a path a line, CSV and Parquet with a column of paths; or Parquet that holds the images."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

import pyarrow as pa

from camrt.errors import BatchError, did_you_mean, one_line
from camrt.scale.part import Part, text_of
from camrt.scale.rows import parquet, rows_parts
from camrt.scale.store import file_system, is_url

LISTS = (".csv", ".tsv", ".txt")
PHOTO_COLUMNS = ("path", "file", "filename", "file_name", "image", "url", "uri", "source", "jpg")
ID_COLUMN = "id"
TRIED = 20  # paths at the head of a list of which one must be there


@dataclass(frozen=True)
class Columns:
    """Which columns of a list hold what.

    Attributes
    ----------
    photo : str or None
        Of paths, or of images; by default the first of the usual names.
    id : str or None
        Of what names a photo; by default "id" where there is one, else the path does.
    root : str or None
        Folder or URL that relative paths start from; by default the list's own.
    """

    photo: str | None = None
    id: str | None = None
    root: str | None = None


def listed(path: str, name: str, columns: Columns, size: int) -> Iterator[Part | list[str]]:
    """Yield what a list holds: photos as [id, path], or parts of a Parquet file that holds the images itself.

    Raises
    ------
    BatchError
        It cannot be read, lacks a column, or none of its first paths is there.
    """
    try:
        if not path.lower().endswith(LISTS):
            yield from _parquet(path, name, columns, size)
            return
        with _text(path) as file:
            found = _lines(file) if path.lower().endswith(".txt") else _cells(path, file, columns)
            yield from _placed(path, found, columns)
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise BatchError(f"{path} cannot be read as a list of photos ({one_line(error)}).") from None


@contextmanager
def _text(path: str) -> Iterator[TextIO]:
    if is_url(path):
        files, inside = file_system(path)
        with files.open(inside, "r", encoding="utf-8-sig", newline="") as file:
            yield file
    else:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            yield file


def _lines(file: Iterable[str]) -> Iterator[tuple[str | None, str]]:
    for line in file:
        if text := line.rstrip("\r\n"):
            yield None, text


def _cells(path: str, file: Iterable[str], columns: Columns) -> Iterator[tuple[str | None, str]]:
    table = csv.DictReader(file, delimiter="\t" if path.lower().endswith(".tsv") else ",")
    photo, names = chosen(path, list(table.fieldnames or ()), columns)
    for number, row in enumerate(table, 2):
        place = row[photo] or ""
        given = row[names] if names else None
        yield given or (None if place else f"{text_of(os.path.basename(path))}:{number}"), place


def _parquet(path: str, name: str, columns: Columns, size: int) -> Iterator[Part | list[str]]:
    with parquet(path) as file:
        schema = file.schema_arrow
        photo, names = chosen(path, schema.names, columns)
        if not _is_text(schema.field(photo).type):
            yield from rows_parts(path, name, size, photo, names)
            return
        wanted = [photo, *([names] if names else [])]
        rows = (row for batch in file.iter_batches(size, columns=wanted) for row in batch.to_pylist())
        found = (
            (str(row[names]) if names else None if row[photo] else f"{name}#{number}", row[photo] or "")
            for number, row in enumerate(rows)
        )
        yield from _placed(path, found, columns)


def _is_text(kind: Any) -> bool:
    """Tell whether a column holds paths; else it holds images.

    Raises
    ------
    BatchError
        It holds neither.
    """
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return True
    if pa.types.is_struct(kind) and "bytes" in {field.name for field in kind}:
        return False
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return False
    raise BatchError(f"A column of photos holds paths or encoded images, this one {kind}. Name another with --column.")


def chosen(path: str, found: list[str], columns: Columns) -> tuple[str, str | None]:
    """Return the columns of the photos and of the ids.

    Raises
    ------
    BatchError
        There is no such column.
    """
    for wanted in (columns.photo, columns.id):
        if wanted is not None and wanted not in found:
            raise BatchError(f"{path} has no column {wanted!r}.{did_you_mean(wanted, found)} It has: {', '.join(found)}.")
    photo = columns.photo or next((name for name in PHOTO_COLUMNS if name in found), None)
    if photo is None:
        raise BatchError(
            f"{path}: which column holds the photos? None is called {', '.join(PHOTO_COLUMNS)}. Name one with --column; "
            f"there are: {', '.join(found)}. A list of paths without a head is a .txt file."
        )
    return photo, columns.id or (ID_COLUMN if ID_COLUMN in found and photo != ID_COLUMN else None)


def _placed(path: str, found: Iterable[tuple[str | None, str]], columns: Columns) -> Iterator[list[str]]:
    """Yield [id, path] with relative paths from where they start."""
    slash = path.rfind("/") + 1
    root = columns.root.rstrip("/") + "/" if columns.root else path[:slash]
    missing = list[str]()
    for number, (given, place) in enumerate(found):
        whole = place if not place or is_url(place) or os.path.isabs(place) else root + place
        if number == len(missing) < TRIED and whole and not is_url(whole):
            missing += [whole] * (not os.path.exists(whole))
            if len(missing) == TRIED:
                raise _nowhere(path, missing[0])
        yield [text_of(given if given is not None else place), whole]
    if missing and number + 1 == len(missing):
        raise _nowhere(path, missing[0])


def _nowhere(path: str, first: str) -> BatchError:
    return BatchError(
        f"{path}: the first paths are not there, {first} for instance. Relative paths start at the list's own folder, or "
        "where --root says."
    )
