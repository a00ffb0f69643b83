"""Read class labels: a .txt with one a line, or a .json list or dict."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from camrt.errors import ExportError
from camrt.files import MAX_TEXT, read_regular
from camrt.table import is_text


def read_labels(labels: str | Path | Sequence[str] | None, classes: int) -> tuple[str, ...]:
    """Return one label per class; nothing for None.

    Raises
    ------
    ExportError
        The file cannot be read, or the count is not the number of classes.
    """
    if labels is None:
        return ()
    if isinstance(labels, str | Path):
        where, found = str(labels), _read(Path(labels), classes)
    elif isinstance(labels, Mapping):
        raise ExportError(
            "labels must be a path or a sequence of text, got a mapping. Give its values in the order of the classes."
        )
    else:
        where, found = "labels", list(labels)
    if not all(isinstance(label, str) and is_text(label) for label in found):
        raise ExportError(f"{where}: labels must be text.")
    if len(found) != classes:
        raise ExportError(f"{where} has {len(found)} labels, the network has {classes} classes. Give one label per class.")
    return tuple(found)


def _read(path: Path, classes: int) -> list[str]:
    try:
        text = read_regular(path, MAX_TEXT).decode("utf-8-sig")
    except OSError as error:
        raise ExportError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise ExportError(f"{path} is not UTF-8 text.") from None
    if path.suffix.lower() != ".json":
        lines = text.rstrip().split("\n")
        return [line.strip() for line in lines] if lines != [""] else []
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ExportError(f"{path} is not JSON ({error}).") from None
    if isinstance(values, dict):
        return _by_index(values, path, classes)
    if isinstance(values, list):
        return values
    raise ExportError(f"{path}: labels must be a list, or a dict from index to label, got {type(values).__name__}.")


def _by_index(values: dict[str, object], path: Path, classes: int) -> list[str]:
    """Read {"0": "tench", …}; values such as ["n01440764", "tench"] give their last entry."""
    try:
        by_index = {int(key): value for key, value in values.items()}
    except ValueError:
        wrong = next(key for key in values if not key.isdecimal())
        raise ExportError(f"{path}: the keys of labels must be class indices, got {wrong!r}.") from None
    missing = [i for i in range(len(by_index)) if i not in by_index]
    if missing:
        raise ExportError(f"{path}: there is no label for class {missing[0]} of {classes}.")
    found = [by_index[i] for i in range(len(by_index))]
    return [str(v[-1]).replace("_", " ") if isinstance(v, list) and v else v for v in found]  # type: ignore[misc]
