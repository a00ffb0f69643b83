"""Photos in tar archives, as WebDataset keeps them: of the files of one name, the image is explained."""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, ClassVar

from camrt.files import open_regular
from camrt.photo import ENDINGS, MAX_BYTES
from camrt.scale.location import bare, is_url, opened, reason
from camrt.scale.part import Item, Part, failing, text_of

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
DAMAGED = (  # what tarfile meets it with
    OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError, ValueError, TypeError, IndexError, RecursionError,
)  # fmt: skip
MAX_NAME = 1 << 20  # bytes of what goes before a member with a long name; tarfile would read any announced number
LONG = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)


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

    def names(self) -> Iterator[str]:
        yield f"{self.name}#{self.offset}"

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
            told = f"{text_of(self.path)}: cannot be read after {read} photos ({reason(error)})."
            yield Item(f"{self.name}#{self.offset}", text_of(self.path), failing(told))

    def _item(self, member: tarfile.TarInfo, archive: tarfile.TarFile, seen: Counter[str]) -> Item:
        name = text_of(name_of(member))
        seen[name] += 1
        unique = name if seen[name] == 1 else f"{name}#{seen[name]}"
        source = f"{text_of(self.path)}/{name}"
        if member.size > MAX_BYTES:
            return Item(f"{self.name}/{unique}", source, failing(f"{source}: it has {member.size:,} bytes."))
        file = archive.extractfile(member)
        assert file is not None, "a regular file has content"
        return Item(f"{self.name}/{unique}", source, file.read())


class Header(tarfile.TarInfo):
    """A member's header; one that is damaged is an error wherever it stands, where tarfile takes it for the archive's end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Header:
        try:
            header = super().frombuf(buf, encoding, errors)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(str(error)) from None
        if header.size < 0 or (header.type in LONG and header.size > MAX_NAME):
            raise tarfile.ReadError(f"a header announces {header.size} bytes")
        return header


def members(file: BinaryIO, offset: int = 0, mode: str = "r|*") -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    """Yield the images of an archive, and the archive, in order; nothing is kept of those that were passed."""
    if offset:
        file.seek(offset)
        mode = "r:"
    options = {"tarinfo": Header, "encoding": "utf-8"}
    with tarfile.open(fileobj=file, mode=mode, **options) as archive:  # type: ignore[call-overload]
        while (member := archive.next()) is not None:
            archive.members.clear()  # it would grow with every member
            if member.size < 0:  # as a pax header may say; tarfile would go back, and round for ever
                raise tarfile.ReadError(f"a member announces {member.size} bytes")
            if member.isreg() and is_image(member.name):
                yield member, archive


def name_of(member: tarfile.TarInfo) -> str:
    """Return a member's name; what is archived as . has members that begin so."""
    return member.name.removeprefix("./")


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
    stretches = _stretches(path, size) if bare(path).endswith(".tar") and not is_url(path) else None
    if stretches is None:
        yield Tar(path, name)
        return
    for offset, count in stretches:
        yield Tar(path, name, offset, count)


def _stretches(path: str, size: int) -> list[tuple[int, int]] | None:
    """Return where each stretch begins and how many photos it has; None where names repeat, or the archive is damaged."""
    starts: list[int] = []
    names: set[str] = set()
    try:
        with open_regular(Path(path)) as file:
            for member, _ in members(file, mode="r:"):
                if (name := name_of(member)) in names:
                    return None
                if len(names) % size == 0:
                    starts.append(member.offset if starts else 0)
                names.add(name)
    except DAMAGED:
        return None
    return [(start, min(size, len(names) - i * size)) for i, start in enumerate(starts)]
