"""Photos that are files of their own, local or behind a URL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from camrt.errors import BatchError, ImageError, one_line
from camrt.photo import MAX_BYTES, ImageSource
from camrt.scale.location import file_system, is_url
from camrt.scale.part import Item, Part, failing, text_of


@dataclass(frozen=True)
class Paths(Part):
    """Photos by their paths.

    Attributes
    ----------
    listed : list of [str, str]
        The id and the path, or URL, of each.
    """

    listed: list[list[str]]
    kind: ClassVar[str] = "paths"

    @property
    def photos(self) -> int:
        return len(self.listed)

    def items(self) -> Iterator[Item]:
        for name, path in self.listed:
            yield Item(name, text_of(path), image_at(path))

    def names(self) -> Iterator[str]:
        return (name for name, _ in self.listed)


def image_at(path: str) -> ImageSource:
    """Return an image that is read when its turn comes."""
    if not path:
        return failing("The list names no path for this photo.")
    return partial(read_url, path) if is_url(path) else path


def read_url(url: str) -> bytes:
    """Return what lies behind a URL.

    Raises
    ------
    ImageError
        It cannot be read, or is too large.
    BatchError
        fsspec, or what it needs for this kind of URL, is not installed.
    """
    try:
        files, path = file_system(url)
        data = bytes(files.cat_file(path, end=MAX_BYTES + 1))
    except FileNotFoundError:
        raise ImageError(f"{text_of(url)}: there is no such file.") from None
    except BatchError:
        raise
    except Exception as error:  # of whatever package serves this kind of URL
        raise ImageError(f"{text_of(url)}: cannot be read ({one_line(error)}).") from None
    if len(data) > MAX_BYTES:
        raise ImageError(f"{text_of(url)}: cannot be read (it has more than {MAX_BYTES:,} bytes).")
    return data
