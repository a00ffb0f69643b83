"""A part of the input: some photos in order, the unit of work; it can be written down and read again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from camrt.errors import ImageError
from camrt.photo import ImageSource


class Item(NamedTuple):
    """A photo.

    Attributes
    ----------
    id : str
        Of no other photo.
    source : str
        Where it lies, for people and for who wants to look at it.
    image : path, bytes or function
        As `Explainer.explain_many` takes it.
    """

    id: str
    source: str
    image: ImageSource


@dataclass(frozen=True)
class Part:
    """Some photos in order.

    Attributes
    ----------
    photos : int or None
        How many; None where that shows only when they are read.
    """

    kind: ClassVar[str]

    @property
    def photos(self) -> int | None:
        """Return how many photos there are."""
        raise NotImplementedError

    def items(self) -> Iterator[Item]:
        """Yield the photos; what cannot be read is one whose image raises an ImageError."""
        raise NotImplementedError

    def names(self) -> Iterator[str]:
        """Yield what must stand once in a dataset: the ids, where that many can be compared.

        Raises
        ------
        BatchError
            They cannot be read.
        """
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        """Return what `read_part` makes the part of again."""
        return {"kind": self.kind, **vars(self)}


def failing(message: str) -> Callable[[], ImageSource]:
    """Return an image that cannot be read."""

    def image() -> ImageSource:
        raise ImageError(message)

    return image


def text_of(name: str) -> str:
    r"""Return a name as text: bytes of a file name that are no UTF-8 are written as \xff.

    >>> text_of("photo-\udcff.png")
    'photo-\\xff.png'
    """
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")
