"""Locations as users write them: paths, and URLs that fsspec opens, perhaps inside one another ("zip://a.jpg::s3://b/c.zip")."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from camrt.errors import BatchError, CamrtError, one_line
from camrt.files import open_regular

LOCAL = "file://"
HTTP = ("http://", "https://")
MAGIC = re.compile(r"[*?\[]")  # of globs
READ_AHEAD = 8 << 20  # bytes, of what is behind a URL


def is_url(location: str) -> bool:
    """Tell whether a location is one that fsspec opens: "s3://bucket/photos"."""
    return "://" in location


def plain(location: str) -> str:
    """Return a location as a path where it is a URL of this machine.

    >>> plain("file:///data/a.jpg"), plain("s3://bucket/a.jpg")
    ('/data/a.jpg', 's3://bucket/a.jpg')
    """
    return location.removeprefix(LOCAL) if "::" not in location else location


def split(location: str) -> tuple[str, str]:
    """Return a location in two: itself, and what it is inside of.

    >>> split("zip://a.jpg::s3://b/c.zip"), split("a::b.jpg")
    (('zip://a.jpg', '::s3://b/c.zip'), ('a::b.jpg', ''))
    """
    start = location.find("://")
    end = location.find("::", start + 3) if start >= 0 else -1
    return (location, "") if end < 0 else (location[:end], location[end:])


def folder_of(location: str) -> str:
    """Return the folder that a location, of which what it is inside of was split off, lies in, with its slash.

    >>> folder_of("/data/a.csv"), folder_of("a.csv"), folder_of("https://host/a.csv?key=/1")
    ('/data/', '', 'https://host/')
    """
    return location[: without_query(location).rfind("/") + 1]


def bare(location: str) -> str:
    """Return what tells the kind of a location: its name in lower case, without its query and what it is inside of.

    >>> bare("https://host/LIST.csv?key=1"), bare("zip://a.JPG::s3://bucket/b.zip"), bare("A?.jpg")
    ('https://host/list.csv', 'zip://a.jpg', 'a?.jpg')
    """
    return without_query(split(location)[0]).lower()


def without_query(location: str) -> str:
    """Return an HTTP URL without what follows its path; in other locations a ? is part of a name."""
    return location.partition("?")[0] if location.startswith(HTTP) else location


def file_system(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL and the path in it.

    Raises
    ------
    BatchError
        fsspec, or what it needs for this kind of URL, is not installed.
    OSError
        It refuses the URL.
    """
    try:
        fsspec = importlib.import_module("fsspec")
    except ModuleNotFoundError:
        raise BatchError(f"{url} is opened by fsspec, which is not installed: pip install 'camrt[batch]'.") from None
    try:
        with as_os_errors():
            found: tuple[Any, str] = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise BatchError(f"{url} cannot be opened: {one_line(error)}.") from None
    return found


@contextmanager
def as_os_errors() -> Iterator[None]:
    """Turn the errors of whatever package serves a URL into OSErrors."""
    try:
        yield
    except (OSError, CamrtError, ImportError):
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {one_line(error)}") from error


@contextmanager
def opened(location: str) -> Iterator[BinaryIO]:
    """Open a file for reading.

    Raises
    ------
    OSError
        It cannot be read: from a URL, whatever goes wrong while it is open.
    BatchError
        fsspec, or what it needs for this kind of URL, is not installed.
    """
    if is_url(location):
        files, path = file_system(location)
        with as_os_errors(), files.open(path, "rb", cache_type="readahead", block_size=READ_AHEAD) as file:
            yield file
    else:
        with open_regular(Path(location)) as file:
            yield file


def reason(error: Exception) -> str:
    """Return why a location cannot be read."""
    return (isinstance(error, OSError) and error.strerror) or one_line(error)
