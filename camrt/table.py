"""Read a JSON object key by key; every refusal names the key, what it must be and what was found."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from camrt.errors import CamrtError, did_you_mean

_KINDS: dict[str, tuple[type, ...]] = {
    "an object": (dict,),
    "a list": (list, tuple),
    "a string": (str,),
    "a whole number": (int,),
    "a number": (int, float),
}

LARGEST = (1 << 63) - 1
MAX_RANK, MAX_DIMENSION = 8, 1 << 40  # of a tensor's shape; their product is never astronomic


class Table:
    """A JSON object with its place in the file and the error to raise when a value is not what it must be."""

    def __init__(self, values: Any, where: str, error: type[CamrtError], prefix: str = ""):
        if not isinstance(values, dict):
            raise error(f"{where}: {prefix.rstrip('.') or 'the file'} must be an object, got {_found(values)}.")
        self.values: dict[str, Any] = values
        self.where = where
        self.error = error
        self.prefix = prefix

    def refuse(self, key: str, must: str, found: Any) -> CamrtError:
        return self.error(f"{self.where}: '{self.prefix}{key}' must be {must}, got {_found(found)}.")

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def _get(self, key: str, kind: str) -> Any:
        if key not in self.values:
            raise self.error(f"{self.where}: '{self.prefix}{key}' is missing; it must be {kind}.")
        value = self.values[key]
        if not isinstance(value, _KINDS[kind]) or isinstance(value, bool):
            raise self.refuse(key, kind, value)
        return value

    def text(self, key: str) -> str:
        value: str = self._get(key, "a string")
        if not is_text(value):
            raise self.refuse(key, "text that can be written as UTF-8", value)
        return value

    def integer(self, key: str, least: int = 0) -> int:
        value: int = self._get(key, "a whole number")
        if not least <= value <= LARGEST:
            raise self.refuse(key, f"a whole number of at least {least}", value)
        return value

    def number(self, key: str) -> float:
        value = self._get(key, "a number")
        if not _is_finite(value):
            raise self.refuse(key, "a finite number", value)
        return float(value)

    def choice(self, key: str, allowed: Iterable[str]) -> str:
        value, allowed = self.text(key), tuple(allowed)
        if value not in allowed:
            raise self.refuse(key, "one of " + ", ".join(allowed), value)
        return value

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        values = self._get(key, "a list")
        good = all(isinstance(v, int | float) and not isinstance(v, bool) and _is_finite(v) for v in values)
        if not good or len(values) != count:
            raise self.refuse(key, f"a list of {count} numbers", values)
        return tuple(float(v) for v in values)

    def strings(self, key: str) -> tuple[str, ...]:
        values = self._get(key, "a list")
        if not all(isinstance(v, str) and is_text(v) for v in values):
            raise self.refuse(key, "a list of strings", values)
        return tuple(values)

    def shape(self, key: str, least: int) -> tuple[int, ...]:
        value = self._get(key, "a list")
        if not is_shape(value, least):
            raise self.refuse(key, f"a list of whole numbers of at least {least}", value)
        return tuple(value)

    def table(self, key: str) -> Table:
        return Table(self._get(key, "an object"), self.where, self.error, f"{self.prefix}{key}.")

    def tables(self, key: str) -> list[Table]:
        values = self._get(key, "a list")
        return [Table(v, self.where, self.error, f"{self.prefix}{key}[{i}].") for i, v in enumerate(values)]

    def only(self, *known: str) -> None:
        """Refuse keys that are none of these."""
        for key in self.values:
            if key not in known:
                raise self.error(
                    f"{self.where}: unknown key '{self.prefix}{key}'.{did_you_mean(str(key), known)} "
                    f"Known keys: {', '.join(known)}."
                )


def is_shape(value: Any, least: int) -> bool:
    """Tell whether a value is a list of at most 8 dimensions of at least `least`."""
    return (
        isinstance(value, list | tuple)
        and len(value) <= MAX_RANK
        and all(isinstance(d, int) and not isinstance(d, bool) and least <= d <= MAX_DIMENSION for d in value)
    )


def is_text(value: str) -> bool:
    """Tell whether a string can be written as UTF-8; JSON can hold lone surrogates."""
    return not any("\ud800" <= c <= "\udfff" for c in value)


def _is_finite(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False


def _found(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write numbers of more than 4300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."
