"""Tensors as the protocol carries them: JSON, flat or nested, or little-endian bytes ↔ arrays, or lists of bytes.

What a shape claims is compared with what is there before anything is allocated for it.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from reprlib import repr as brief
from typing import Any

import numpy as np

from camrt.server.errors import Refusal

BYTES, BOOL = "BYTES", "BOOL"
DATATYPES: Mapping[str, np.dtype[Any]] = {
    BOOL: np.dtype(np.bool_),
    **{f"{sign}INT{8 * n}": np.dtype(f"{kind}{n}") for sign, kind in (("U", "u"), ("", "i")) for n in (1, 2, 4, 8)},
    **{f"FP{8 * n}": np.dtype(f"f{n}") for n in (2, 4, 8)},
}  # fmt: skip
LENGTH = 4  # bytes of the length before each element of BYTES
MAX_RANK, MAX_COUNT = 8, 1 << 40  # of a shape; beyond, NumPy's own sums overflow
MOST_IN_JSON = 1_000_000  # elements of an answer; each takes 100 bytes and more of memory on its way into JSON

Values = np.ndarray | list[bytes]


@dataclass(frozen=True)
class Tensor:
    """A tensor.

    Attributes
    ----------
    name, datatype : str
    shape : tuple of int
    values : ndarray or list of bytes
        Of that shape; elements of BYTES are listed row by row.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Values


def read_shape(given: Any, where: str) -> tuple[int, ...]:
    """Return a shape, checked: a list of whole numbers from 0 on.

    Raises
    ------
    Refusal
        400.
    """
    if not isinstance(given, list) or len(given) > MAX_RANK or not all(type(size) is int and size >= 0 for size in given):
        raise Refusal(400, f"{where}: shape must be a list of at most {MAX_RANK} whole numbers from 0 on, got {brief(given)}.")
    if math.prod(max(size, 1) for size in given) > MAX_COUNT:
        raise Refusal(400, f"{where}: the shape {brief(given)} has more elements than any request can hold.")
    return tuple(given)


# --- binary ---------------------------------------------------------------------------------------------------------------
def from_binary(data: bytes | memoryview, datatype: str, shape: tuple[int, ...], where: str) -> Values:
    """Return what bytes hold.

    Raises
    ------
    Refusal
        400: they are not exactly what the datatype and the shape take.
    """
    count = math.prod(shape)
    if datatype == BYTES:
        return _elements(memoryview(data), count, where)
    dtype = DATATYPES[datatype]
    if len(data) != count * dtype.itemsize:
        needed = f"{datatype} of shape {list(shape)} takes {count * dtype.itemsize:,} bytes"
        raise Refusal(400, f"{where}: {needed}, got {len(data):,}.")
    if datatype == BOOL and np.any(np.frombuffer(data, np.uint8) > 1):
        raise Refusal(400, f"{where}: a byte of {BOOL} must be 0 or 1.")
    little = np.frombuffer(data, dtype.newbyteorder("<"))
    return little.astype(dtype).reshape(shape)  # a copy, aligned


def _elements(data: memoryview, count: int, where: str) -> list[bytes]:
    if LENGTH * count > len(data):
        raise Refusal(400, f"{where}: {count:,} elements of {BYTES} take at least {LENGTH * count:,} bytes, got {len(data):,}.")
    found, at = [], 0
    for i in range(count):
        start = at + LENGTH
        at = start + int.from_bytes(data[at:start], "little")
        if at > len(data):
            raise Refusal(400, f"{where}: element {i} ends {at - len(data):,} bytes beyond the data.")
        found.append(bytes(data[start:at]))
    if at != len(data):
        raise Refusal(400, f"{where}: {len(data) - at:,} bytes follow the last of {count:,} elements.")
    return found


def to_binary(values: Values) -> bytes:
    """Return values as bytes, little endian."""
    if isinstance(values, list):
        return b"".join(chain.from_iterable((len(one).to_bytes(LENGTH, "little"), one) for one in values))
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


# --- JSON -----------------------------------------------------------------------------------------------------------------
def from_json(data: Any, datatype: str, shape: tuple[int, ...], where: str, *, in_base64: bool = False) -> Values:
    """Return what JSON holds: a flat list, or lists in lists as the shape says.

    Parameters
    ----------
    in_base64 : bool
        Elements of BYTES are bytes in base64; without, there is no telling what a string's bytes are.

    Raises
    ------
    Refusal
        400: it is not exactly what the datatype and the shape take.
    """
    flat, count = _flat(data, shape, where), math.prod(shape)
    if len(flat) != count:
        raise Refusal(400, f"{where}: the shape {list(shape)} takes {count:,} elements, got {len(flat):,}.")
    if datatype == BYTES:
        return _decoded(flat, where, in_base64)
    return _array(flat, datatype, where).reshape(shape)


def _flat(data: Any, shape: tuple[int, ...], where: str) -> list[Any]:
    if not isinstance(data, list):
        raise Refusal(400, f"{where}: data must be a list, got {brief(data)}.")
    if not any(isinstance(one, list) for one in data):
        return data
    level: list[Any] = [data]
    for axis, size in enumerate(shape):
        for part in level:
            if not isinstance(part, list) or len(part) != size:
                found = f"{len(part):,} of them" if isinstance(part, list) else brief(part)
                raise Refusal(
                    400, f"{where}: by its shape {list(shape)} axis {axis} of data takes {size:,} elements, got {found}."
                )
        level = list(chain.from_iterable(level))
    return level


def _array(flat: list[Any], datatype: str, where: str) -> np.ndarray:
    """Return JSON's scalars as an array; nothing is rounded to a whole number, wrapped around or made infinite."""
    dtype = DATATYPES[datatype]
    allowed = {bool} if datatype == BOOL else {int, float} if dtype.kind == "f" else {int}
    if not set(map(type, flat)) <= allowed:
        wrong = next(one for one in flat if type(one) not in allowed)
        raise Refusal(400, f"{where}: an element of {datatype} cannot be {brief(wrong)}.")
    if dtype.kind in "ui" and flat:
        bounds = np.iinfo(dtype)
        if min(flat) < bounds.min or max(flat) > bounds.max:
            raise Refusal(400, f"{where}: elements of {datatype} lie within {bounds.min} and {bounds.max}.")
    try:
        with np.errstate(over="ignore"):
            array = np.array(flat, np.float64).astype(dtype) if dtype.kind == "f" else np.array(flat, dtype)
    except OverflowError:  # a whole number that no float holds
        array = np.array([np.inf])
    if not np.isfinite(array).all():
        raise Refusal(400, f"{where}: an element is too large for {datatype}.")
    return array


def _decoded(flat: list[Any], where: str, in_base64: bool) -> list[bytes]:
    advice = f'Send {BYTES} as binary data, or in base64 with this input\'s parameters {{"content_type": "base64"}}.'
    if not in_base64:
        raise Refusal(400, f"{where}: a string cannot hold any bytes. {advice}")
    if not all(isinstance(one, str) for one in flat):
        raise Refusal(400, f"{where}: an element of {BYTES} must be a string. {advice}")
    try:
        return [base64.b64decode(one, validate=True) for one in flat]
    except ValueError as error:
        raise Refusal(400, f"{where}: an element is no base64: {error}. {advice}") from None


def to_json(values: Values, where: str, *, in_base64: bool = False) -> Sequence[Any]:
    """Return values as a flat list for JSON; bytes as text, or in base64.

    Raises
    ------
    Refusal
        422: a value is not finite, or there are too many.
    """
    if isinstance(values, list):
        return [(base64.b64encode(one) if in_base64 else one).decode() for one in values]
    if values.size > MOST_IN_JSON:
        raise Refusal(422, f"{where} has {values.size:,} elements; JSON may hold {MOST_IN_JSON:,}. Ask for it as binary data.")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise Refusal(422, f"{where} is not finite everywhere, which JSON cannot tell. Ask for it as binary data.")
    flat: list[Any] = values.ravel().tolist()
    return flat
