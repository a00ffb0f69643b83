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
RUNS = 100  # temporary files that are open at once
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
            if len(runs) == RUNS:
                merged = _spilled(heapq.merge(*map(_read, runs)))
                for run in runs:
                    run.close()
                runs = [merged]
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
    """Tells which texts were added more than once; keeps sixteen bytes of each, in temporary files that `with` closes."""

    def __init__(self) -> None:
        self._files = [tempfile.TemporaryFile(prefix="camrt-") for _ in range(BUCKETS)]

    def __enter__(self) -> Once:
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files:
            file.close()

    def add(self, text: str) -> None:
        digest = digest_of(text)
        self._files[digest[0] % BUCKETS].write(digest)

    def repeated(self) -> set[bytes]:
        """Return the digests of the texts that were added more than once."""
        found: set[bytes] = set()
        for file in self._files:
            file.seek(0)
            halves = np.frombuffer(file.read(), np.uint64).reshape(-1, 2)
            ordered = halves[np.lexsort(halves.T)]
            same = (ordered[1:] == ordered[:-1]).all(axis=1)
            found |= {digest.tobytes() for digest in ordered[1:][same]}
        return found


def digest_of(text: str) -> bytes:
    """Return what stands for a text among many."""
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=DIGEST).digest()
