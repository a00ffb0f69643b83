"""How far a worker is: numbers in memory that its keeper sees, even after its death."""

from __future__ import annotations

import mmap
import os
import struct

FIELDS = ("taken_job", "taken", "done_job", "done", "trial")
NOTHING = -1


class Gauge:
    """Numbers that two processes share.

    Parameters
    ----------
    descriptor : int, optional
        Of memory that another process made; by default new memory.

    Attributes
    ----------
    taken_job, taken : int
        The job of which a photo was taken last, and how many of it were.
    done_job, done : int
        The job of which a photo was done last, and how many of it are.
    trial : int
        The photo of a trial that is being explained.
    """

    def __init__(self, descriptor: int | None = None):
        self.descriptor = os.memfd_create("camrt-gauge", 0) if descriptor is None else descriptor
        if descriptor is None:
            os.ftruncate(self.descriptor, mmap.PAGESIZE)
        self._memory = mmap.mmap(self.descriptor, mmap.PAGESIZE)
        if descriptor is None:
            self.reset()

    def reset(self) -> None:
        """Forget what was there."""
        for name in FIELDS:
            self[name] = NOTHING

    def __getitem__(self, name: str) -> int:
        return int(struct.unpack_from("q", self._memory, 8 * FIELDS.index(name))[0])

    def __setitem__(self, name: str, value: int) -> None:
        struct.pack_into("q", self._memory, 8 * FIELDS.index(name), value)

    @property
    def is_new(self) -> bool:
        """Tell whether no photo was begun yet."""
        return self["taken"] <= 0 and self["trial"] == NOTHING

    def values(self) -> tuple[int, ...]:
        """Return all numbers."""
        return tuple(self[name] for name in FIELDS)

    def close(self) -> None:
        self._memory.close()
        os.close(self.descriptor)
