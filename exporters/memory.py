"""Bound the memory of one native call, which a hostile model can drive into gigabytes without naming a size."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOM = 512 << 20  # bytes beside what is in proportion to the model


@contextmanager
def bounded_memory(size: int) -> Iterator[None]:
    """Let allocations fail, with std::bad_alloc or MemoryError, that go far beyond a model of `size` bytes.

    The bound is on the address space of the process, lowered for the call and set back behind it.  Only Linux says how
    much of it is used; elsewhere there is no bound.
    """
    if sys.platform != "linux":
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = used + ROOM + 8 * size  # serialised, parsed, inferred, serialised and parsed again
    if soft != resource.RLIM_INFINITY:
        limit = min(limit, soft)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
