"""Counts and shares as people write them."""

from __future__ import annotations


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun, its thousands apart.

    >>> counted(1, "row"), counted(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def share(count: int, total: int) -> str:
    """Return a share in percent that reads 0 or 100 only where it is so.

    >>> share(0, 9), share(1, 3), share(1, 100_000), share(99_999, 100_000)
    ('0 %', '33.3 %', '< 0.1 %', '> 99.9 %')
    """
    if count in (0, total):
        return "0 %" if not count else "100 %"
    percent = 100 * count / total
    return "< 0.1 %" if percent < 0.1 else "> 99.9 %" if percent > 99.9 else f"{percent:.1f} %"
