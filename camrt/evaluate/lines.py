"""What a line of results holds: a file that was edited by hand is refused where it is read, and not hours later."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

LARGEST = 1e40  # beyond what float32 holds; means and differences of such numbers are finite
CLASSES = 1 << 31

Check = Callable[[Any], bool]


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def _count(value: Any) -> bool:
    return isinstance(value, int) and _number(value) and value >= 0


def _positive(value: Any) -> bool:
    return _number(value) and value > 0


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_or_none(_number), value))


def _by_name(check: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


KINDS: Mapping[str, Mapping[str, Check]] = {  # by the key that no other kind has
    "values": {
        "photo": _text, "state": _text, "variant": _text, "values": _by_name(_or_none(_number)), "curves": _by_name(_numbers),
        "outcome": _text, "passes": _count, "tail_passes": _count, "backward_passes": _count, "ms": _number, "thumbnail": _text,
    },
    "target": {
        "photo": _text, "state": _text, "target": _count, "top": _count, "label": _or_none(_count), "probability": _number,
        "object": _or_none(_number), "one_ms": _positive, "pass_ms": _positive,
    },
    "correlation": {"photo": _text, "state": _text, "variant": _text, "depth": _count, "correlation": _number},
    "error": {"photo": _text, "error": _text},
    "unavailable": {"variant": _text, "unavailable": _text},
    "memory": {"variant": _text, "memory": _number, "device_memory": _or_none(_number)},
}  # fmt: skip
INDICES = ("target", "top", "label")


def read_line(text: bytes, classes: int = CLASSES) -> dict[str, Any]:
    """Return a line of results.

    Parameters
    ----------
    text : bytes
    classes : int
        How many the network has.

    Raises
    ------
    ValueError
        It is no JSON, or not what an evaluation keeps.
    """
    line = read_object(text)
    kind = next((kind for kind in KINDS if kind in line), None)
    if kind is None:
        raise ValueError(f"a line has none of {', '.join(KINDS)}")
    for key, check in KINDS[kind].items():
        if key not in line or not check(line[key]) or (key in INDICES and (line[key] or 0) >= classes):
            raise ValueError(f"{key!r} of a line with {kind!r} is {_short(line[key]) if key in line else 'missing'}")
    return line


def read_object(text: bytes) -> dict[str, Any]:
    """Return a JSON object.

    Raises
    ------
    ValueError
        It is something else.
    """
    try:
        found = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("a line is nested too deep") from None
    if not isinstance(found, dict):
        raise ValueError("a line is no object")
    return found


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{_short(text)} is too large")
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
