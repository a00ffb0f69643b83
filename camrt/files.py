"""Files: read only regular ones up to a limit; write whole or not at all, beside their place and then renamed."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path

MAX_TEXT = 64 << 20  # bytes of a JSON or text file

Identity = tuple[int, int, int, int, int]  # device, inode, size, nanoseconds of the last change of content and of inode


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading; a pipe or a device, which may never end, is an OSError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a NUL in the name
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))
    return os.fdopen(descriptor, "rb")


def read_regular(path: Path, limit: int) -> bytes:
    """Return the content of a file of at most `limit` bytes.

    Raises
    ------
    OSError
        It is missing, unreadable, no regular file, or larger.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes, the limit is {limit:,}", str(path))
        return file.read(size + 1)  # Python reserves as much as it is asked for


def identity(file: BufferedReader) -> Identity:
    """Return what changes when a file is replaced or written to.

    Of an open file: network file systems ask their server when one is opened, and may answer from memory otherwise.
    """
    found = os.fstat(file.fileno())
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_together(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write several files into a folder, each whole; nothing is replaced before all of them are written.

    Raises
    ------
    OSError
        The folder cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in contents:
        if (folder / name).is_dir():  # the one thing over which no file can be renamed
            raise IsADirectoryError(errno.EISDIR, f"{name} is a folder", str(folder / name))
    mark = f".{secrets.token_hex(4)}.part"
    beside = {name: folder / f".{name}{mark}" for name in contents}
    try:
        for name, data in contents.items():
            with beside[name].open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for name, path in beside.items():
            path.replace(folder / name)
    finally:
        for path in beside.values():
            path.unlink(missing_ok=True)
    return [folder / name for name in contents]
