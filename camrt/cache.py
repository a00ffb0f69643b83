"""What was worked out about a bundle and need not be again, in a folder beside it: BUNDLE.cache.

Everything in it can be deleted at any time; nothing in it is needed.  Where it cannot be written, nothing is kept.  As what
is kept there is believed, it is used only where nobody can write in it who could not write in the bundle.

The hash of a file is believed for a day, while device, inode, size and both times of last change are what they were, and
only if it is the one that the bundle asks for.  It is remembered only where a later change shows: the last one is older than
a tick of any file system's clock, and nothing of it was on its way to the disk when the file was read, since further
changes through a mapping leave no time until then.  (In tmpfs they never do: there, and where a disk rots, a day it is.)
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import time
from pathlib import Path
from typing import Any, TypeGuard

from camrt.files import Identity, identity, open_regular, read_regular, sha256_of, write_together

HASHES = "sha256.json"
MAX_LIST = 1 << 20  # bytes of a list of hashes
SETTLED = 60  # seconds since the last change: FAT's clock ticks every two, and by then most systems have written it out
BELIEVED = 24 * 3600  # seconds: where a file system keeps no times or a disk rots, that shows within a day
ABANDONED = 3600  # seconds after which what a process left half-written is taken away
TAG = "CACHEDIR.TAG"  # by it camrt knows its own folder, and backups what to leave out: bford.info/cachedir
SIGNATURE = "Signature: 8a477f597d28d172789f06886806bc55\n# Kept by camrt; it can be deleted at any time.\n"
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Cache:
    """The folder, and the hashes of files that are still what they were when they were hashed.

    Parameters
    ----------
    bundle : Path
        The bundle's folder.
    enabled : bool
        Without it nothing is read or kept.
    """

    def __init__(self, bundle: Path, *, enabled: bool = True):
        self.bundle = bundle.resolve()
        self.folder = self.bundle.parent / f"{self.bundle.name}.cache"
        self.enabled = enabled and (not os.path.lexists(self.folder) or self._is_ours())
        self._hashes: dict[str, Any] = _read(self.folder / HASHES) if self.enabled else {}
        self._changed = False

    def sha256(self, path: Path, expected: str) -> str:
        """Return the SHA-256 of a file: the one expected where it is known to have that; otherwise it is computed.

        Raises
        ------
        OSError
            It is missing, unreadable, or no regular file.
        """
        if not self.enabled:
            return sha256_of(path)
        with open_regular(path) as file:
            now, started = identity(file), time.time()
            if self._knows(now, expected):
                return expected
            sure = started - max(now[-2:]) / 1e9 > SETTLED and _sync(file.fileno())
            found = hashlib.file_digest(file, "sha256").hexdigest()
            if sure and identity(file) == now:
                self._hashes[_key(now)] = [*now, int(started), found]
                self._changed = True
        return found

    def _knows(self, now: Identity, expected: str) -> bool:
        known = self._hashes.get(_key(now))
        return _is_fresh(known) and known[:-2] == list(now) and known[-1] == expected

    def save(self) -> None:
        """Write the hashes down, if there are new ones, and take away what was left half-written."""
        if not self.enabled:
            return
        self._tidy()
        if self._changed and self.make():
            every = _read(self.folder / HASHES) | self._hashes  # other processes may have written some meanwhile
            data = json.dumps({key: known for key, known in every.items() if _is_fresh(known)}, indent=1)
            with contextlib.suppress(OSError):
                write_together(self.folder, {HASHES: data.encode()})
                self._changed = False

    def make(self) -> bool:
        """Make the folder where there is none, and tell whether it can be used."""
        try:
            self.folder.mkdir(mode=0o755, exist_ok=True)
            if not self._is_ours():
                return False
            tag = self.folder / TAG
            if not tag.exists():
                tag.write_text(SIGNATURE)
                if tag.stat().st_mode & OTHERS_WRITE:  # others may write into all that this process makes
                    self.folder.chmod(0o700)
        except OSError:
            return False
        return True

    def _is_ours(self) -> bool:
        """Tell whether it is a folder of camrt's, or empty, where only those can write who can write in the bundle."""
        try:
            found, beside = self.folder.lstat(), self.bundle.stat()
            ours = not any(self.folder.iterdir()) or (self.folder / TAG).is_file()
        except OSError:
            return False
        group = stat.S_IWGRP if found.st_gid != beside.st_gid else 0
        foreign = found.st_mode & (OTHERS_WRITE & ~beside.st_mode | group)
        return ours and stat.S_ISDIR(found.st_mode) and not foreign and found.st_uid in (os.geteuid(), 0, beside.st_uid)

    def _tidy(self) -> None:
        with contextlib.suppress(OSError):
            for part in self.folder.glob(".*.part"):
                if abs(time.time() - part.lstat().st_mtime) > ABANDONED:
                    shutil.rmtree(part, ignore_errors=True)
                    part.unlink(missing_ok=True)


def _key(of: Identity) -> str:
    return f"{of[0]}:{of[1]}"


def _is_fresh(known: Any) -> TypeGuard[list[Any]]:
    """Tell whether an entry, an identity with the time and the hash, is of the last day."""
    if not isinstance(known, list) or len(known) != 7 or not isinstance(known[5], int):
        return False
    return 0 <= int(time.time()) - known[5] < BELIEVED


def _sync(descriptor: int) -> bool:
    """Write to the disk what is on its way there, so that the next change through a mapping leaves its time."""
    try:
        os.fsync(descriptor)
    except OSError:
        return False
    return True


def _read(path: Path) -> dict[str, Any]:
    """Return what was kept; nothing where that cannot be read."""
    try:
        values = json.loads(read_regular(path, MAX_LIST))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
