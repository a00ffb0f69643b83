"""Lists of photos: text with a path a line, CSV and Parquet with a column of paths; or Parquet that holds the images."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import chain
from typing import Any

import pyarrow as pa

from camrt.errors import BatchError, did_you_mean
from camrt.scale.location import bare, folder_of, is_url, opened, plain, reason, split
from camrt.scale.part import Part, text_of
from camrt.scale.rows import DAMAGED, parquet, rows_parts

LISTS = (".csv", ".tsv", ".txt")
PARQUET = ".parquet"
TEXTS = ("string", "large_string", "string_view")  # as pyarrow names them
IMAGES = ("binary", "large_binary", "binary_view")
PHOTO_COLUMNS = (
    "path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img", "img_path", "photo", "url",
    "uri", "source", "jpg",
)  # fmt: skip
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
        if bare(path).endswith(PARQUET):
            yield from _parquet(path, name, columns, size)
            return
        with opened(path) as data, TextIOWrapper(data, "utf-8-sig", "surrogateescape", newline="") as file:
            found = _lines(file) if bare(path).endswith(".txt") else _cells(path, name, file, columns)
            yield from _placed(path, found, columns)
    except (*DAMAGED, csv.Error) as error:
        raise BatchError(f"{path} cannot be read as a list of photos ({reason(error)}).") from None


def _lines(file: Iterable[str]) -> Iterator[tuple[str | None, str]]:
    for line in file:
        if text := line.rstrip("\r\n"):
            yield None, text


def _cells(path: str, name: str, file: Iterable[str], columns: Columns) -> Iterator[tuple[str | None, str]]:
    lines = iter(file)
    head = next(lines, "")
    delimiter = "\t" if bare(path).endswith(".tsv") else ";" if ";" in head and "," not in head else ","
    table = csv.DictReader(chain([head], lines), delimiter=delimiter)
    photo, ids = chosen(path, list(table.fieldnames or ()), columns)
    for row in table:
        place = row[photo] or ""
        yield (row[ids] if ids else None) or (None if place else f"{name}:{table.line_num}"), place


def _parquet(path: str, name: str, columns: Columns, size: int) -> Iterator[Part | list[str]]:
    with parquet(path) as file:
        schema = file.schema_arrow
        photo, ids = chosen(path, schema.names, columns)
        if _holds_images(path, schema.field(photo)):
            yield from rows_parts(path, name, size, photo, ids)
            return
        wanted = [photo, *([ids] if ids else [])]
        rows = (row for batch in file.iter_batches(size, columns=wanted) for row in batch.to_pylist())
        yield from _placed(path, (_row(row, f"{name}#{i}", photo, ids) for i, row in enumerate(rows)), columns)


def _row(row: dict[str, Any], name: str, photo: str, ids: str | None) -> tuple[str | None, str]:
    """Return the id, where there is one, and the path of a row of Parquet."""
    given, place = row[ids] if ids else None, row[photo] or ""
    return (str(given) if given not in (None, "") else None if place else name), place


def _holds_images(path: str, field: Any) -> bool:
    """Tell whether a column holds images; else it holds paths.

    Raises
    ------
    BatchError
        It holds neither.
    """
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if str(kind) in TEXTS:
        return False
    if str(kind) in IMAGES or (pa.types.is_struct(kind) and "bytes" in {part.name for part in kind}):
        return True
    raise BatchError(
        f"{path}: column {field.name!r} holds {kind}, and a column of photos holds paths, or encoded images. Name another "
        "with --column."
    )


def chosen(path: str, found: list[str], columns: Columns) -> tuple[str, str | None]:
    """Return the columns of the photos and of the ids.

    Raises
    ------
    BatchError
        There is no such column.
    """
    if not found:
        raise BatchError(f"{path} is empty. Its first line names the columns; one of them holds the paths of the photos.")
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
    head, outer = split(path)
    if columns.root is not None:
        head, outer = plain(columns.root).rstrip("/") + "/", ""
    missing, trying = list[str](), True
    for given, place in found:
        whole = place and _from(folder_of(head), plain(place), outer)
        if whole and trying:
            trying = not is_url(whole) and not os.path.exists(whole)
            missing += [whole] * trying
            if len(missing) == TRIED:
                break
        yield [text_of(given if given is not None else place), whole]
    if missing and trying:
        raise BatchError(
            f"{path}: the first paths are not there, {missing[0]} for instance. Relative paths start at the list's own "
            "folder, or where --root says."
        )


def _from(folder: str, place: str, outer: str) -> str:
    return place if is_url(place) or place.startswith("/") else f"{folder}{place}{outer}"
