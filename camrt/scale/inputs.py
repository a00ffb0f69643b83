"""What is to be explained, as users name it: folders, globs, lists, archives; it becomes a stream of parts."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from camrt.errors import BatchError
from camrt.scale.lists import LISTS, Columns, listed
from camrt.scale.order import in_order
from camrt.scale.part import Part, text_of
from camrt.scale.paths import Paths
from camrt.scale.store import file_system, is_url
from camrt.scale.tar import ENDINGS, TARS, tar_parts

PARQUET = ".parquet"
MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Inputs:
    """What is to be explained.

    Attributes
    ----------
    places : sequence of str
        Folders, globs and files, local or URLs.
    columns : Columns
        Of lists and Parquet files.
    size : int
        Photos of a part.
    """

    places: Sequence[str]
    columns: Columns
    size: int

    def parts(self) -> Iterator[Part]:
        """Yield the parts, in an order that the names alone determine.

        Raises
        ------
        BatchError
            A place is missing, cannot be read, or is of no known kind.
        """
        waiting: list[list[str]] = []
        for place in self.places:
            for found in self._found(place):
                if isinstance(found, Part):
                    if waiting:
                        yield Paths(waiting)
                        waiting = []
                    yield found
                    continue
                waiting.append(found)
                if len(waiting) == self.size:
                    yield Paths(waiting)
                    waiting = []
        if waiting:
            yield Paths(waiting)

    def _found(self, place: str) -> Iterator[Part | list[str]]:
        """Yield what a place holds: photos as [id, path], and parts of archives."""
        files, base = _files(place)
        base = base if len(self.places) == 1 else ""
        for path in files:
            yield from self._file(path, text_of(path.removeprefix(base)))

    def _file(self, path: str, name: str) -> Iterator[Part | list[str]]:
        kind = path.lower()
        if kind.endswith(TARS):
            yield from tar_parts(path, name, self.size)
        elif kind.endswith((*LISTS, PARQUET)):
            yield from listed(path, name, self.columns, self.size)
        elif kind.rpartition(".")[2] in ENDINGS:
            yield [name, path]
        else:
            known = ", ".join([*sorted(ENDINGS), *(e.lstrip(".") for e in (*TARS, *LISTS, PARQUET))])
            raise BatchError(f"{path} ends in none of {known}, so it is unclear what it holds. Rename it, or name others.")


def _files(place: str) -> tuple[Iterable[str], str]:
    """Return the files of a place, in order, and what goes before all of their names."""
    try:
        return _remote(place) if is_url(place) else _local(place)
    except OSError as error:
        raise BatchError(f"{place} cannot be read ({error.strerror or error}).") from None


def _local(place: str) -> tuple[Iterable[str], str]:
    if os.path.isdir(place):
        base = os.path.join(place, "")
        return _some(_walk(base), place), base
    if os.path.exists(place):
        return [place], os.path.join(os.path.dirname(place), "")
    if MAGIC.search(place):
        fixed = MAGIC.split(place, maxsplit=1)[0]
        base = fixed[: fixed.rfind("/") + 1]
        found = glob.iglob(place, recursive=True)
        return _some(in_order(path for path in found if os.path.isfile(path)), place), base
    raise BatchError(f"{place}: there is no such file or folder. A glob stands in quotes: 'photos/*.jpg'.")


def _walk(folder: str) -> Iterator[str]:
    """Yield the photos of a folder, with all below it, in order; links to folders are not followed."""
    try:
        with os.scandir(folder) as entries:
            names = in_order(
                entry.name + "/" * entry.is_dir(follow_symlinks=False)
                for entry in entries
                if entry.is_dir(follow_symlinks=False) or (_is_photo(entry.name) and entry.is_file())
            )
            for name in names:
                if name.endswith("/"):
                    yield from _walk(folder + name)
                else:
                    yield folder + name
    except OSError as error:
        raise BatchError(f"{folder} cannot be read ({error.strerror or error}).") from None


def _is_photo(name: str) -> bool:
    return name.rpartition(".")[2].lower() in ENDINGS


def _some(files: Iterator[str], place: str) -> Iterator[str]:
    """Yield the files, and refuse where there is none."""
    first = next(files, None)
    if first is None:
        raise BatchError(
            f"{place} holds no photos ({', '.join(sorted(ENDINGS))}). Archives and lists are named themselves, or by a glob: "
            "'shards/*.tar'."
        )
    yield first
    yield from files


def _remote(place: str) -> tuple[Iterable[str], str]:
    files, path = file_system(place)
    if MAGIC.search(path):
        fixed = MAGIC.split(place, maxsplit=1)[0]
        found = sorted(files.glob(path))
        return _some((files.unstrip_protocol(p) for p in found), place), fixed[: fixed.rfind("/") + 1]
    try:
        is_folder = bool(files.isdir(path))
    except Exception:  # some servers list nothing
        is_folder = False
    if is_folder:
        base = str(files.unstrip_protocol(path)).rstrip("/") + "/"
        return _some(_walk_remote(files, path), place), base
    if not _is_there(files, path):
        raise BatchError(f"{place}: there is no such file or folder.")
    return [place], place[: place.rfind("/") + 1]


def _walk_remote(files: Any, path: str) -> Iterator[str]:
    for folder, folders, names in files.walk(path):
        folders.sort()
        for name in sorted(filter(_is_photo, names)):
            yield str(files.unstrip_protocol(f"{folder}/{name}"))


def _is_there(files: Any, path: str) -> bool:
    try:
        return bool(files.exists(path))
    except Exception:  # what a server answers to what it does not have
        return False
