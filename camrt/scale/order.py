"""Texts in order, and texts that stand once, whatever their number: what does not fit is kept in temporary files."""

from __future__ import annotations

import hashlib
import heapq
import json
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO

import numpy as np

AT_ONCE = 200_000  # texts in memory
BUCKETS = 64
DIGEST = 16  # bytes: of 10⁹ texts two are taken for one with a probability of 10⁻²⁰


def in_order(texts: Iterable[str], most: int = AT_ONCE) -> Iterator[str]:
    """Yield texts sorted, of which at most `most` are in memory."""
    runs: list[IO[str]] = []
    chunk: list[str] = []
    try:
        for text in texts:
            chunk.append(text)
            if len(chunk) == most:
                runs.append(_spilled(sorted(chunk)))
                chunk = []
        yield from heapq.merge(*map(_read, runs), sorted(chunk))
    finally:
        for run in runs:
            run.close()


def _spilled(texts: Iterable[str]) -> IO[str]:
    """Return a temporary file with a text a line, as JSON: a file name may hold a line break, or bytes that are no text."""
    file = tempfile.TemporaryFile("w+", encoding="ascii", prefix="camrt-")
    file.writelines(f"{json.dumps(text)}\n" for text in texts)
    file.seek(0)
    return file


def _read(run: IO[str]) -> Iterator[str]:
    return map(json.loads, run)


class Once:
    """Tells which texts were added more than once; keeps sixteen bytes of each, in temporary files."""

    def __init__(self) -> None:
        self._files = [tempfile.TemporaryFile(prefix="camrt-") for _ in range(BUCKETS)]

    def add(self, text: str) -> None:
        digest = digest_of(text)
        self._files[digest[0] % BUCKETS].write(digest)

    def repeated(self) -> set[bytes]:
        """Return the digests of the texts that were added more than once, and forget all."""
        found: set[bytes] = set()
        for file in self._files:
            file.seek(0)
            digests = np.frombuffer(file.read(), f"V{DIGEST}")
            file.close()
            ordered = _sorted(digests)
            found |= {bytes(d) for d in ordered[1:][ordered[1:] == ordered[:-1]]}
        return found


def _sorted(digests: np.ndarray) -> np.ndarray:
    halves = digests.view(np.uint64).reshape(-1, 2)
    return digests[np.lexsort((halves[:, 1], halves[:, 0]))]


def digest_of(text: str) -> bytes:
    """Return what stands for a text among many."""
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=DIGEST).digest()
