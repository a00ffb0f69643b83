"""The files of a place: of a folder with all below it, of a glob, or itself; local or behind a URL, in the same order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from functools import partial
from itertools import groupby
from typing import Any

from camrt.errors import BatchError, one_line
from camrt.photo import ENDINGS
from camrt.scale.location import HTTP, MAGIC, as_os_errors, bare, file_system, folder_of, is_url, plain, reason, split
from camrt.scale.order import in_order

FOLDER, LINK = "/", "//"  # what the names of folders, and of links to folders, end in

Look = Callable[[str], Iterator[str]]  # from a folder, with its slash, to the names in it
FOREIGN = frozenset({"heic", "heif", "avif", "jxl", "jp2", "dng", "cr2", "nef", "arw"})  # rows that say why not


def files_of(place: str) -> Iterator[tuple[str, str]]:
    """Yield the files of a place, each with its name: what is left of it without the folder, or a glob's fixed part.

    Of a folder, these are the photos; what is hidden, and what is behind links to folders, is left out.  The order is that of
    the names.

    Raises
    ------
    BatchError
        There are none, or they cannot be read.
    """
    place = plain(place)
    head, outer = split(place)
    if (kind := _kind(place)) == "directory":
        base = head if head.endswith("/") else f"{head}/"
        folder, look = _look(base, outer)
        found: Iterator[str] = filter(is_photo, _walk(look, folder))
    elif kind:
        folder = base = folder_of(head)
        found = iter([head])
    elif start := MAGIC.search(head, head.find("://") + 1):
        base = head[: head.rfind("/", 0, start.start()) + 1]
        folder, look = _look(base, outer)
        matching = in_order(_match(look, folder, head[len(base) :].split("/")))
        found = (path for path, _ in groupby(matching))
    else:
        raise BatchError(f"{place}: there is no such file or folder. A glob stands in quotes: 'photos/*.jpg'.")
    empty = True
    for path in found:
        empty = False
        name = path[len(folder) :]
        yield f"{base}{name}{outer}", name
    if empty:
        raise BatchError(f"{place}: no file matches." if not kind else _photoless(place))


def is_photo(path: str) -> bool:
    """Tell whether a file's name is a photo's."""
    _, dot, ending = bare(path).rpartition(".")
    return bool(dot) and ending in ENDINGS | FOREIGN


def _photoless(place: str) -> str:
    return (
        f"{place} holds no photos ({', '.join(sorted(ENDINGS))}). Archives and lists are named themselves, or by a glob: "
        "'shards/*.tar'."
    )


def _kind(place: str) -> str | None:
    """Return "directory" or another word for what is there; None where nothing is."""
    if not is_url(place):
        return "directory" if os.path.isdir(place) else "file" if os.path.lexists(place) else None
    try:
        files, path = file_system(place)
        with as_os_errors():
            kind = str(files.info(path)["type"])
    except FileNotFoundError as error:
        if error.__cause__ is not None and not MAGIC.search(place):  # HTTP: no connection, not allowed, not there
            raise BatchError(f"{place} cannot be read ({one_line(error.__cause__)}).") from None
        return None
    except OSError as error:
        raise BatchError(f"{place} cannot be read ({reason(error)}).") from None
    return "directory" if place.startswith(HTTP) and bare(place).endswith("/") else kind  # as a page of links


def _look(base: str, outer: str) -> tuple[str, Look]:
    """Return a folder, as what looks into it names it, and what looks."""
    if not is_url(base):
        return base, _local
    files, path = file_system(base + outer)
    return path.rstrip("/") + "/" * bool(path), partial(_remote, files)


def _local(folder: str) -> Iterator[str]:
    with os.scandir(folder or ".") as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield entry.name + FOLDER
            else:
                yield entry.name + LINK * (entry.is_symlink() and os.path.isdir(entry.path))


def _remote(files: Any, folder: str) -> Iterator[str]:
    with as_os_errors():
        entries = files.ls(folder, detail=True)
    above = folder.strip("/") + "/" if folder.strip("/") else ""
    for entry in entries:
        path = str(entry["name"]).strip("/")
        name = path[len(above) :] if path.startswith(above) else ""
        if name and "/" not in name:  # else it is the folder itself, or a page's link to elsewhere
            yield name + FOLDER * (entry["type"] == "directory")


def _names(look: Look, folder: str) -> Iterator[str]:
    """Yield the names in a folder in order."""
    try:
        yield from in_order(look(folder))
    except (OSError, ValueError) as error:
        raise BatchError(f"{folder} cannot be read ({reason(error)}).") from None


def _walk(look: Look, folder: str) -> Iterator[str]:
    """Yield the files of a folder and of all below it, in order."""
    levels = [(folder, _names(look, folder))]
    while levels:
        above, names = levels[-1]
        name = next(names, None)
        if name is None:
            levels.pop()
        elif name.startswith(".") or name.endswith(LINK):
            continue
        elif name.endswith(FOLDER):
            levels.append((above + name, _names(look, above + name)))
        else:
            yield above + name


def _match(look: Look, folder: str, pieces: list[str]) -> Iterator[str]:
    """Yield the files below a folder whose path matches, piece by piece; ** is any number of folders."""
    piece, *rest = pieces
    if piece == "**":
        for path in _walk(look, folder):
            if _matches(path[len(folder) :].split("/"), pieces):
                yield path
        return
    for name in _names(look, folder):
        if _fits(name.rstrip("/"), piece):
            if rest and name.endswith(FOLDER):
                yield from _match(look, folder + name.rstrip("/") + "/", rest)
            elif not rest and not name.endswith(FOLDER):
                yield folder + name


def _matches(names: list[str], pieces: list[str]) -> bool:
    """Tell whether a path matches, piece by piece."""
    if not pieces or not names:
        return not names and not pieces
    piece, *rest = pieces
    if piece != "**":
        return _fits(names[0], piece) and _matches(names[1:], rest)
    return not rest or any(_matches(names[i:], rest) for i in range(len(names)))


def _fits(name: str, piece: str) -> bool:
    return fnmatchcase(name, piece) and (piece.startswith(".") or not name.startswith("."))
