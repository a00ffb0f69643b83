"""What files say about photos: labels, boxes and masks."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from camrt.errors import ParameterError, UnknownTarget
from camrt.evaluate.subject import Box, Subject
from camrt.files import MAX_TEXT, read_regular
from camrt.manifest import Manifest
from camrt.question import class_index

CLASS_COLUMNS = ("class_index", "class", "label")
SIDES = ("x0", "y0", "x1", "y1")

ClassBoxes = dict[int | None, list[Box]]  # None where boxes have no class


def describe(
    subjects: Iterable[Subject],
    manifest: Manifest,
    *,
    labels: Path | None = None,
    boxes: Path | None = None,
    masks: Path | None = None,
) -> list[Subject]:
    """Return the photos with what files say about them.

    Parameters
    ----------
    subjects : iterable of Subject
    manifest : Manifest
        Whose classes the files name.
    labels : path, optional
        CSV with the columns file and class_index (or class, or label: an index or a name).
    boxes : path, optional
        CSV with the columns file, x0, y0, x1, y1 and perhaps class_index; several rows a photo are allowed.
    masks : path, optional
        A folder with NAME.png for the photo NAME.jpg, or a CSV with the columns file, mask (a path beside the CSV) and perhaps
        class_index.

    Raises
    ------
    ParameterError
        A file cannot be read, lacks a column, names an unknown class, or speaks of none of the photos.
    """
    subjects = list(subjects)
    names = _Names(subjects)
    label_of = {} if labels is None else _labels(names, labels, manifest)
    boxes_of = {} if boxes is None else _boxes(names, boxes, manifest)
    found = [] if masks is None else list(_masks(subjects, names, masks, manifest))
    mask_of = {name: path for name, path, _ in found}
    shown = _only_classes(boxes_of) | {name: shown for name, _, shown in found if shown is not None} | label_of
    return [replace(s, label=shown.get(s.name), boxes=boxes_of.get(s.name, {}), mask=mask_of.get(s.name)) for s in subjects]


def _labels(names: _Names, file: Path, manifest: Manifest) -> dict[str, int]:
    found = dict[str, int]()
    for name, row in names.rows(file, ()):
        shown = _class_of(row, file, manifest)
        if shown is None:
            raise ParameterError(
                f"{file}: {row['file']!r} has no class; one of the columns {', '.join(CLASS_COLUMNS)} must hold it."
            )
        if found.setdefault(name, shown) != shown:
            raise ParameterError(
                f"{file}: {name!r} is class {found[name]} in one row and {shown} in another. A photo has one label; "
                "leave out the rows of what else it shows."
            )
    return found


def _boxes(names: _Names, file: Path, manifest: Manifest) -> dict[str, ClassBoxes]:
    found: dict[str, ClassBoxes] = {}
    for name, row in names.rows(file, SIDES):
        found.setdefault(name, {}).setdefault(_class_of(row, file, manifest), []).append(_box(row, file))
    return found


def _only_classes(boxes_of: Mapping[str, ClassBoxes]) -> dict[str, int]:
    """Return what photos show whose boxes are all of one class."""
    only = {name: next(iter(boxes)) for name, boxes in boxes_of.items() if len(boxes) == 1}
    return {name: shown for name, shown in only.items() if shown is not None}


class _Names:
    """The photos by name, and by the last part of it where that is enough."""

    def __init__(self, subjects: Sequence[Subject]):
        self.known = {s.name for s in subjects}
        self.short: dict[str, str | None] = {}
        for s in subjects:
            last = s.name.rpartition("/")[2]
            self.short[last] = None if last in self.short else s.name

    def rows(self, file: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
        """Yield the rows of a CSV that speak of a photo, with its name."""
        rows = _read_csv(file, ("file", *columns))
        found = 0
        for row in rows:
            given = row["file"].strip().replace("\\", "/").removeprefix("./")
            name = given if given in self.known else self.short.get(given.rpartition("/")[2])
            if name is not None:
                found += 1
                yield name, row
        if not found:
            example = f", for instance {rows[0]['file']!r}" if rows else ""
            raise ParameterError(
                f"{file}: none of its {len(rows)} rows names one of the photos{example}. "
                "Its column 'file' must hold their paths within the folder."
            )


def _read_csv(file: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    try:
        text = read_regular(file, MAX_TEXT).decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except OSError as error:
        raise ParameterError(f"{file}: cannot be read ({error.strerror}).") from None
    except (UnicodeError, csv.Error) as error:
        raise ParameterError(f"{file} is not a CSV in UTF-8 ({error}).") from None
    header = list(rows[0]) if rows else []
    for column in columns:
        if column not in header:
            raise ParameterError(
                f"{file} must have the columns {', '.join(columns)}, found {', '.join(map(str, header)) or 'none'}."
            )
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise ParameterError(f"{file}, row {number}: it has not as many values as the first row has names.")
    return rows


def _class_of(row: Mapping[str, str], file: Path, manifest: Manifest) -> int | None:
    text = next((row[column].strip() for column in CLASS_COLUMNS if row.get(column, "").strip()), None)
    try:
        return None if text is None else class_index(manifest, text)
    except UnknownTarget as error:
        raise ParameterError(f"{file}, {row['file']!r}: {error}") from None


def _box(row: Mapping[str, str], file: Path) -> Box:
    try:
        x0, y0, x1, y1 = (float(row[side]) for side in SIDES)
    except ValueError:
        x0, y0, x1, y1 = (float("nan"),) * 4
    if not (np.isfinite([x0, y0, x1, y1]).all() and x0 < x1 and y0 < y1):
        given = ", ".join(row[side] for side in SIDES)
        raise ParameterError(f"{file}, {row['file']!r}: a box is x0 < x1 and y0 < y1 in pixels, got {given}.")
    return x0, y0, x1, y1


def _masks(
    subjects: Sequence[Subject], names: _Names, masks: Path, manifest: Manifest
) -> Iterator[tuple[str, Path, int | None]]:
    """Yield the photos' names, masks and, where a CSV tells it, classes."""
    if not masks.is_dir():
        for name, row in names.rows(masks, ("mask",)):
            yield name, masks.parent / row["mask"], _class_of(row, masks, manifest)
        return
    found = [
        (s.name, path) for s in subjects
        if (path := _first_file(masks / Path(s.name).with_suffix(".png"), masks / f"{Path(s.name).stem}.png"))
    ]  # fmt: skip
    if not found:
        raise ParameterError(f"{masks}: no mask of any photo found; that of photo.jpg is called photo.png.")
    yield from ((name, path, None) for name, path in found)


def _first_file(*paths: Path) -> Path | None:
    return next((path for path in paths if path.is_file()), None)
