"""Several classes in one string, as the protocol's parameters are no lists: indices and labels with commas between them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from camrt.manifest import Manifest
from camrt.question import class_index


def read_classes(manifest: Manifest, text: str, most: int) -> list[int]:
    """Return the class indices that "heart, 2" stands for.

    A label may hold commas itself.  So from left to right, the longest run of parts that is a whole label is that class; a
    part alone is an index or one of a label's names, as `target` takes it.

    Parameters
    ----------
    most : int
        After one more class than so many, reading ends.

    Raises
    ------
    UnknownTarget
        A part names no class, or more than one.
    """
    return list(islice(_classes(manifest, text.split(",")), most + 1))


def _classes(manifest: Manifest, parts: list[str]) -> Iterator[int]:
    labels = {_bare(label.split(",")): label for label in manifest.labels}
    longest = max(map(len, labels), default=1)
    start = 0
    while start < len(parts):
        ends = range(min(len(parts), start + longest), start, -1)
        end = next((end for end in ends if _bare(parts[start:end]) in labels), start + 1)
        yield class_index(manifest, labels.get(_bare(parts[start:end]), parts[start]))
        start = end


def _bare(parts: list[str]) -> tuple[str, ...]:
    return tuple(part.strip().casefold() for part in parts)
