"""What is to be explained, as users name it: folders, globs, lists, archives; it becomes a stream of parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from camrt.errors import BatchError
from camrt.photo import ENDINGS
from camrt.scale.lists import LISTS, PARQUET, Columns, listed
from camrt.scale.location import bare
from camrt.scale.part import Part, text_of
from camrt.scale.paths import Paths
from camrt.scale.places import files_of, is_photo
from camrt.scale.tar import TARS, tar_parts


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
        for found in self._found():
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

    def _found(self) -> Iterator[Part | list[str]]:
        """Yield what the places hold: photos as [id, path], and parts of archives."""
        for place in self.places:
            for path, name in files_of(place):
                yield from self._file(path, text_of(name if len(self.places) == 1 else path))

    def _file(self, path: str, name: str) -> Iterator[Part | list[str]]:
        kind = bare(path)
        if is_photo(path):
            yield [name, path]
        elif kind.endswith(TARS):
            yield from tar_parts(path, name, self.size)
        elif kind.endswith((*LISTS, PARQUET)):
            yield from listed(path, name, self.columns, self.size)
        else:
            known = ", ".join([*sorted(ENDINGS), *(e.lstrip(".") for e in (*TARS, *LISTS, PARQUET))])
            advice = "Unpack it, or pack it as a tar." if kind.endswith(".zip") else "Rename it, or name others."
            raise BatchError(f"{path} ends in none of {known}, so it is unclear what it holds. {advice}")
