"""Photos in tar archives, as WebDataset keeps them: of the files of one name, the image is explained."""

from __future__ import annotations

import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, ClassVar

from camrt.errors import one_line
from camrt.files import open_regular
from camrt.photo import MAX_BYTES
from camrt.scale.part import Item, Part, failing, kind_of_part, text_of
from camrt.scale.store import file_system, is_url

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ENDINGS = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff"})
DAMAGED = (OSError, EOFError, tarfile.TarError, zlib.error, ValueError)


@kind_of_part
@dataclass(frozen=True)
class Tar(Part):
    """Photos of an archive, or of a stretch of it.

    Attributes
    ----------
    path : str
        Path or URL.
    name : str
        Goes before the name of each photo in its id.
    offset : int
        Where in the file the first member begins; 0 for compressed ones.
    count : int or None
        How many photos; None for all that follow.
    """

    path: str
    name: str
    offset: int = 0
    count: int | None = None
    kind: ClassVar[str] = "tar"

    @property
    def photos(self) -> int | None:
        return self.count

    def items(self) -> Iterator[Item]:
        seen = Counter[str]()
        read = 0
        try:
            with opened(self.path) as file:
                for member, archive in members(file, self.offset):
                    if read == self.count:
                        break
                    yield self._item(member, archive, seen)
                    read += 1
            if self.count is not None and read < self.count:
                raise EOFError(f"it held {self.count} photos when it was listed, and holds {read}")
        except DAMAGED as error:
            told = f"{self.path}: cannot be read after {read} photos ({one_line(error)})."
            yield Item(f"{self.name}#{self.offset}", text_of(self.path), failing(told))

    def _item(self, member: tarfile.TarInfo, archive: tarfile.TarFile, seen: Counter[str]) -> Item:
        name = text_of(member.name.removeprefix("./"))
        seen[name] += 1
        unique = name if seen[name] == 1 else f"{name}#{seen[name]}"
        source = f"{text_of(self.path)}/{name}"
        if member.size > MAX_BYTES:
            return Item(f"{self.name}/{unique}", source, failing(f"{source}: it has {member.size:,} bytes."))
        file = archive.extractfile(member)
        return Item(f"{self.name}/{unique}", source, file.read() if file else failing(f"{source}: it is no file."))


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """Open an archive for reading from its beginning to its end."""
    if is_url(path):
        files, inside = file_system(path)
        with files.open(inside, "rb", cache_type="readahead", block_size=8 << 20) as file:
            yield file
    else:
        with open_regular(Path(path)) as file:
            yield file


def members(file: BinaryIO, offset: int = 0) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    """Yield the images of an archive, and the archive, in order; nothing is kept of those that were passed."""
    if offset:
        file.seek(offset)
    mode = "r:" if offset else "r|*"
    with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
        for member in archive:
            archive.members.clear()  # type: ignore[attr-defined]  # it would grow with every member
            if member.isfile() and is_image(member.name):
                yield member, archive


def is_image(name: str) -> bool:
    """Tell whether a member is a sample's image: what follows the first dot of its name says so.

    >>> is_image("train/0001.jpg"), is_image("train/0001.mask.png"), is_image("train/0001.cls")
    (True, False, False)
    """
    key, _, ending = PurePosixPath(name).name.partition(".")
    return bool(key) and ending.lower() in ENDINGS


def tar_parts(path: str, name: str, size: int) -> Iterator[Tar]:
    """Yield the parts of an archive: stretches of `size` photos of a plain local one, all of any other.

    An archive behind a URL, or compressed, would have to be read whole to find where its members begin.
    """
    plain = path.lower().endswith(".tar") and not is_url(path)
    starts = list(_starts(path, size)) if plain else []
    if not starts:
        yield Tar(path, name)
        return
    for offset, count in starts:
        yield Tar(path, name, offset, count)


def _starts(path: str, size: int) -> Iterator[tuple[int, int]]:
    """Yield where each stretch begins and how many photos it has; nothing where names repeat, or the archive is damaged."""
    found: list[tuple[int, int]] = []
    names: set[str] = set()
    start, count = 0, 0
    try:
        with open_regular(Path(path)) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                archive.members.clear()  # type: ignore[attr-defined]
                if not (member.isfile() and is_image(member.name)):
                    continue
                if member.name in names:
                    return
                names.add(member.name)
                if count == size:
                    found.append((start, count))
                    start, count = member.offset, 0
                count += 1
    except DAMAGED:
        return
    if count:
        found.append((start, count))
    yield from found
