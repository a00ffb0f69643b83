"""What the tests of inputs share: a photo, and what becomes of a place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from camrt.errors import BatchError, ImageError
from camrt.photo import load_photo
from camrt.scale import location
from camrt.scale.inputs import Inputs
from camrt.scale.lists import Columns
from camrt.scale.part import Item

PIXEL = cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))[1].tobytes()
NAMES = ["#.jpg", "%20.jpg", "a b.PNG", "a.jpg", "a\nb.jpg", "b/1.jpg", "b/c/2.TIFF", "b0.jpg", "z?.jpg", "é.jpeg", "日.webp"]


def make_folder(folder: Path) -> Path:
    """Write photos of all names, and what is none."""
    for name in [*NAMES, "notes.txt", ".hidden.jpg", ".thumbs/a.jpg", "jpg", "b/.jpg"]:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(PIXEL)
    return folder


def items_of(*places: str, columns: Columns | None = None, size: int = 3) -> Iterator[Item]:
    """Yield the photos of some places, in the order of their parts."""
    for part in Inputs(places, columns or Columns(), size).parts():
        yield from part.items()


def ids(*places: str) -> list[str]:
    """Return the ids of the photos of some places."""
    return [item.id for item in items_of(*places)]


def refused(*places: object, match: str) -> None:
    """Hold that some places are refused with a message."""
    with pytest.raises(BatchError, match=match):
        ids(*map(str, places))


def unreadable(*places: str) -> list[str]:
    """Return the ids of the photos that cannot be read."""
    found = []
    for item in items_of(*places):
        try:
            load_photo(item.image)
        except ImageError:
            found.append(item.id)
    return found


def take_fsspec_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let fsspec not be installed."""

    def import_module(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(location.importlib, "import_module", import_module)
