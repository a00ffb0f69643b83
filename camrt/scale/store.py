"""Where a dataset lies: a local folder, or a place that fsspec opens; files appear whole or not at all."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from camrt.errors import BatchError
from camrt.scale.location import MAGIC, as_os_errors, file_system, is_url, plain, reason

LOCK = ".lock"
TEMPORARY = re.compile(r"\.[0-9a-f]{8}\.tmp$")


def beside(name: str) -> str:
    """Return a name for what is being written, before it is moved to its place."""
    return f"{name}.{secrets.token_hex(4)}.tmp"


def is_temporary(name: str) -> bool:
    """Tell whether a name is one that `beside` gives.

    >>> is_temporary("manifest.json.0123abcd.tmp"), is_temporary("notes.tmp")
    (True, False)
    """
    return TEMPORARY.search(name) is not None


def open_store(location: str) -> Store:
    """Return the store of a folder or URL.

    Raises
    ------
    BatchError
        fsspec, or what it needs for this kind of URL, is not installed, or refuses the URL.
    """
    location = plain(location)
    return Bucket(location) if is_url(location) else Store(location)


class Store:
    """A local folder.

    Parameters
    ----------
    location : str
        Made when something is written.  Names are relative to it, with slashes.

    Notes
    -----
    Every method raises OSError where the file system does.
    """

    def __init__(self, location: str):
        self.location = location

    def __str__(self) -> str:
        return self.location

    def _at(self, name: str) -> Path:
        return Path(self.location, name)

    def read(self, name: str, offset: int = 0, length: int = -1) -> bytes | None:
        """Return what a file holds, or a stretch of it; None where there is none."""
        try:
            with self._at(name).open("rb") as file:
                file.seek(offset)
                return file.read(length)
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole: beside its place, then renamed."""
        temporary = beside(name)
        with self.create(temporary) as file:
            file.write(data)
        self.move(temporary, name)

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """Write a file piece by piece; it is removed where that fails."""
        path = self._at(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def move(self, old: str, new: str) -> None:
        """Rename a file or folder over whatever is there."""
        source, target = self._at(old), self._at(new)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            shutil.rmtree(target)
        source.replace(target)
        descriptor = os.open(target.parent, os.O_RDONLY)
        try:
            with suppress(OSError):  # some file systems cannot
                os.fsync(descriptor)  # the name, too, outlives a loss of power
        finally:
            os.close(descriptor)

    def size(self, name: str) -> int | None:
        """Return the bytes of a file; None where there is none."""
        try:
            return self._at(name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the bytes of what is in a folder, by name; nothing where there is no folder."""
        try:
            with os.scandir(self._at(folder)) as entries:
                return {entry.name: entry.stat(follow_symlinks=entry.is_file()).st_size for entry in entries}
        except (FileNotFoundError, NotADirectoryError):
            return {}

    def names(self, folder: str) -> list[str]:
        """Return the names of what is in a folder, sorted; none where there is no folder."""
        try:
            return sorted(os.listdir(self._at(folder)))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def remove(self, name: str) -> None:
        """Remove a file or a folder with all that is in it, if it is there."""
        path = self._at(name)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs away.

        Raises
        ------
        BatchError
            Another run writes there.
        """
        self._at(LOCK).parent.mkdir(parents=True, exist_ok=True)
        with self._at(LOCK).open("a") as file:
            with suppress(OSError):  # some network file systems have no locks
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise BatchError(f"{self}: another run writes there. Wait for it, or choose another folder.") from None
            yield


class Bucket(Store):
    """A place that fsspec opens; object stores show a file when it is closed, whole, so that nothing need be renamed."""

    def __init__(self, location: str):
        super().__init__(location)
        if found := MAGIC.search(location):  # fsspec would remove and move whatever matches
            raise BatchError(f"{location}: an output behind a URL may not have {found[0]} in its name. Choose another.")
        try:
            self._fs, root = file_system(location)
        except OSError as error:
            raise BatchError(f"{location} cannot be opened: {reason(error)}.") from None
        self._root = root.rstrip("/")

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @as_os_errors()
    def read(self, name: str, offset: int = 0, length: int = -1) -> bytes | None:
        end = None if length < 0 else offset + length
        try:
            return bytes(self._fs.cat_file(self._path(name), start=offset or None, end=end))
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        with self.create(name) as file:
            file.write(data)

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        path = self._path(name)
        with as_os_errors():
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            file = self._fs.open(path, "wb")
        try:
            yield file
            with as_os_errors():
                file.close()
        except BaseException:
            with suppress(Exception):  # not every file system can take back what was begun
                file.discard()
            with suppress(Exception):
                file.close()
            with suppress(OSError):
                self.remove(name)
            raise

    @as_os_errors()
    def move(self, old: str, new: str) -> None:
        self.remove(new)
        source, target = self._path(old), self._path(new)
        for path in self._fs.find(source):  # object stores have no folders that could be moved
            place = target + path[len(source) :]
            self._fs.makedirs(place.rpartition("/")[0], exist_ok=True)
            self._fs.mv(path, place)
        self.remove(old)

    @as_os_errors()
    def size(self, name: str) -> int | None:
        self._fs.invalidate_cache()
        try:
            return int(self._fs.size(self._path(name)))
        except FileNotFoundError:
            return None

    @as_os_errors()
    def sizes(self, folder: str) -> dict[str, int]:
        self._fs.invalidate_cache()
        try:
            found = self._fs.ls(self._path(folder), detail=True)
        except FileNotFoundError:
            return {}
        return {one["name"].rstrip("/").rpartition("/")[2]: int(one.get("size") or 0) for one in found}

    def names(self, folder: str) -> list[str]:
        return sorted(self.sizes(folder))

    @as_os_errors()
    def remove(self, name: str) -> None:
        self._fs.invalidate_cache()  # workers write, too
        with suppress(FileNotFoundError):
            self._fs.rm(self._path(name), recursive=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Do nothing: object stores have no locks; of two runs at once, both do the same work."""
        yield
