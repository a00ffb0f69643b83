"""Results as they come: a file of JSON lines that a run which was stopped goes on with.

The first line says what was asked; then follows one line for every photo, and one for every method on it.  A line counts when
it is whole: the torn end of a run that was killed is cut off.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from camrt.errors import ParameterError
from camrt.evaluate.lines import CLASSES, read_line, read_object

FILE = "results.jsonl"
KIND = "camrt-evaluation"
VERSION = 1
START = json.dumps({"kind": KIND}).encode()[:-1]  # of the first line


class Records:
    """The results of one question, in a folder that no other process writes to meanwhile.

    Parameters
    ----------
    folder : Path
        Made where it is missing.
    asked : mapping
        What must be the same for results to be of use: JSON values.
    classes : int, optional
        How many the network has.
    restart : bool, default False
        Forget what is there.

    Attributes
    ----------
    lines : list of dict
        What is kept, in order.
    closed : set of str
        Variants that could not run since the file was opened; what they lack may have been installed before.

    Raises
    ------
    ParameterError
        The folder holds results of another question, or another process writes to it.
    """

    def __init__(self, folder: Path, asked: Mapping[str, Any], *, classes: int = CLASSES, restart: bool = False):
        self.path = folder / FILE
        self.lines: list[dict[str, Any]] = []
        self.closed: set[str] = set()
        self._about = defaultdict[str | None, list[dict[str, Any]]](list)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b", buffering=0)  # so that nothing is left to write when closing
        except OSError as error:
            raise ParameterError(f"{self.path} cannot be written ({error.strerror or error}). Choose another folder.") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise ParameterError(
                f"{folder}: another evaluation writes its results there. Wait for it, or choose another folder."
            ) from None
        try:
            if restart:
                self._file.truncate(0)
            self._read(json.loads(json.dumps(asked)), classes)
        except BaseException:
            self.close()
            raise

    def _read(self, asked: dict[str, Any], classes: int) -> None:
        self._file.seek(0)
        whole, end, torn = self._file.read().rpartition(b"\n")
        try:
            first, *others = whole.split(b"\n")
            if not whole and not (torn.startswith(START) or START.startswith(torn)):
                raise ValueError("its first line is of something else")
            if whole:
                self._compare(_read_first(first), asked)
            for line in others:
                self._keep(read_line(line, classes))
        except ValueError as error:
            if isinstance(error, ParameterError):
                raise
            raise ParameterError(
                f"{self.path} is not what camrt evaluate writes ({error}). Choose another folder, or --restart."
            ) from None
        self._file.truncate(len(whole) + len(end))
        if not whole:
            self._write({"kind": KIND, "version": VERSION, "asked": asked})

    def _compare(self, before: dict[str, Any], asked: dict[str, Any]) -> None:
        differing = [key for key in {**before, **asked} if before.get(key) != asked.get(key)]
        if differing:
            listed = "; ".join(f"{key} was {before.get(key)!r}, is {asked.get(key)!r}" for key in differing)
            raise ParameterError(
                f"{self.path} holds results of another question: {listed}. Choose another folder, or --restart."
            )

    def add(self, **line: Any) -> None:
        """Keep a result."""
        self._write(line)
        self._keep(line)
        if "unavailable" in line:
            self.closed.add(line["variant"])

    def about(self, photo: str | None) -> Sequence[dict[str, Any]]:
        """Return the lines about a photo; for None, those about none."""
        return self._about[photo]

    def _keep(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        self._about[line.get("photo")].append(line)

    def _write(self, line: Mapping[str, Any]) -> None:
        data = json.dumps(line, ensure_ascii=True, allow_nan=False).encode() + b"\n"
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            raise self._full(error) from None

    def sync(self) -> None:
        """Bring what was added onto the disk."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._full(error) from None

    def _full(self, error: OSError) -> ParameterError:
        return ParameterError(f"{self.path} cannot be written ({error.strerror}). What is there so far is kept.")

    def close(self) -> None:
        self._file.close()


def _read_first(text: bytes) -> dict[str, Any]:
    """Return what was asked when the file was begun."""
    first = read_object(text)
    if first.get("kind") != KIND or not isinstance(first.get("asked"), dict):
        raise ValueError("its first line is of something else")
    if first.get("version") != VERSION:
        raise ValueError(f"it is of version {first.get('version')}, this camrt writes {VERSION}")
    return dict(first["asked"])
