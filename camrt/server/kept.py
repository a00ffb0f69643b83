"""Photos that may be asked about again: in memory, by names that cannot be guessed, the oldest forgotten first."""

from __future__ import annotations

import secrets
from collections import OrderedDict

ENTRY = 500  # bytes that each takes beside its own


class Kept:
    """So many bytes of photos.

    Parameters
    ----------
    most : int
        Bytes.
    """

    def __init__(self, most: int):
        self._most, self._size = most, 0
        self._photos: OrderedDict[str, bytes] = OrderedDict()

    def keep(self, photo: bytes) -> str | None:
        """Keep a photo; return its name, or None where it is too large."""
        if len(photo) + ENTRY > self._most:
            return None
        name = secrets.token_urlsafe(18)
        self._photos[name] = photo
        self._size += len(photo) + ENTRY
        while self._size > self._most:
            self._size -= len(self._photos.popitem(last=False)[1]) + ENTRY
        return name

    def get(self, name: str) -> bytes | None:
        """Return a photo that was kept, and keep it for longer."""
        if name not in self._photos:
            return None
        self._photos.move_to_end(name)
        return self._photos[name]
