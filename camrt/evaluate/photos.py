"""The photos of folders: those to measure on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from camrt.errors import ParameterError
from camrt.evaluate.subject import Subject
from camrt.photo import ENDINGS


def find_photos(places: Sequence[str | Path]) -> list[Subject]:
    """Return the photos of folders, with all below them, and of files, in order of their names.

    Raises
    ------
    ParameterError
        A place is missing, two photos have one name, or there is no photo.
    """
    found: dict[str, Subject] = {}
    for place in map(Path, places):
        for path, name in _photos_at(place):
            if name in found:
                raise ParameterError(
                    f"{path} and {found[name].path} would both be called {name!r}. Name the folder above them."
                )
            found[name] = Subject(path, name)
    if not found:
        raise ParameterError(f"{', '.join(map(str, places))}: no photo found ({', '.join(sorted(ENDINGS))}).")
    return [found[name] for name in sorted(found)]


def _photos_at(place: Path) -> Iterator[tuple[Path, str]]:
    if place.is_dir():
        for path in sorted(place.rglob("*")):
            if path.suffix.lower().lstrip(".") in ENDINGS and path.is_file():
                yield path, path.relative_to(place).as_posix()
    elif place.exists():
        yield place, place.name
    else:
        raise ParameterError(f"{place}: there is no such photo or folder.")
