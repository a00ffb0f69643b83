"""A JSON object of a request, read key by key: null counts as absent, and every refusal names the key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from reprlib import repr as brief
from typing import Any

from camrt.errors import one_line
from camrt.server.errors import Refusal

Scalar = bool | int | float | str
# More takes so long to read that the server answers nobody else meanwhile: json holds Python's lock.
MOST = {"lists": ("[{", 200_000), "numbers": (",", 600_000), "keys": (":", 10_000)}
MAX_TEXT = 1000  # characters of a parameter's name and of its value


def read_object(data: bytes | memoryview) -> dict[str, Any]:
    """Return the JSON object that bytes hold.

    Raises
    ------
    Refusal
        400.
    """
    try:
        told = str(data, "utf-8")
        for what, (signs, most) in MOST.items():
            if sum(map(told.count, signs)) > most:
                raise Refusal(400, f"The request's JSON has more than {most:,} {what}. Send tensors flat, and as binary data.")
        found = json.loads(told, parse_constant=_no_number)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, f"The request is no JSON: {one_line(error)}.") from None
    except (ValueError, RecursionError):
        raise Refusal(400, "The request's JSON is nested too deeply, or has a number of too many digits.") from None
    if not isinstance(found, dict):
        raise Refusal(400, f"The request must be a JSON object, got {brief(found)}.")
    return found


def _no_number(word: str) -> None:
    raise Refusal(400, f"The request is no JSON: {word} is no number of JSON. Send such tensors as binary data.")


def objects(values: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Return a list of objects, empty where there is none."""
    found = values.get(key)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise Refusal(400, f"{key} must be a list of objects, got {brief(found)}.")
    return found


def text(values: Mapping[str, Any], key: str, where: str) -> str:
    """Return a string."""
    found = values.get(key)
    if not isinstance(found, str):
        raise Refusal(400, f"{where}: {key} must be a string, got {brief(found)}.")
    return found


def parameters(values: Mapping[str, Any], where: str) -> dict[str, Scalar]:
    """Return the parameters of a request, an input or an output: strings, numbers, true and false."""
    found = values.get("parameters")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise Refusal(400, f"{where}: parameters must be an object, got {brief(found)}.")
    given = {name: value for name, value in found.items() if value is not None}
    for name, value in given.items():
        if not isinstance(value, Scalar):
            raise Refusal(
                400, f"{where}: the parameter {brief(name)} must be a string, a number, true or false, got {brief(value)}."
            )
        if len(name) > MAX_TEXT or (isinstance(value, str) and len(value) > MAX_TEXT):
            raise Refusal(400, f"{where}: the parameter {brief(name)} has more than {MAX_TEXT} characters.")
    return given


def flag(values: Mapping[str, Scalar], name: str, where: str, default: bool) -> bool:
    """Return a parameter that is true or false."""
    found = values.get(name, default)
    if not isinstance(found, bool):
        raise Refusal(400, f"{where}: {name} must be true or false, got {brief(found)}.")
    return found
