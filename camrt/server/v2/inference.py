"""What a request asks for: its JSON, the one tensor that it brings, its parameters, and the outputs that it wants.

The body is the JSON alone, or the JSON and the tensor's bytes right behind it; then the header
Inference-Header-Content-Length tells where the JSON ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from reprlib import repr as brief
from typing import Any

from camrt.errors import did_you_mean
from camrt.server.errors import Refusal
from camrt.server.v2 import parts
from camrt.server.v2.inputs import INPUTS
from camrt.server.v2.outputs import DEFAULTS, OUTPUTS
from camrt.server.v2.parts import Scalar
from camrt.server.v2.tensors import BYTES, DATATYPES, Tensor, Values, from_binary, from_json, read_shape

HEADER = "Inference-Header-Content-Length"
SHARED = "shared_memory_region"
BASE64 = "base64"


@dataclass(frozen=True)
class Wanted:
    """An output that is asked for, as bytes or in JSON."""

    name: str
    binary: bool


@dataclass(frozen=True)
class Inference:
    """A request, read.

    Attributes
    ----------
    id : str or None
        Of the client's choice; the answer repeats it.
    tensor : Tensor
        Its name is one of `INPUTS`.
    parameters : mapping of str to bool, int, float or str
    outputs : tuple of Wanted
        In the order of the answer; their names are of `OUTPUTS`.
    """

    id: str | None
    tensor: Tensor
    parameters: Mapping[str, Scalar]
    outputs: tuple[Wanted, ...]


def read_inference(body: bytes, length: str | None) -> Inference:
    """Read a request's body.

    Parameters
    ----------
    length : str or None
        What the header says.

    Raises
    ------
    Refusal
        400: something in it is not as the protocol has it.
    """
    end = _end(body, length)
    view = memoryview(body)
    asked = parts.read_object(view[:end])
    mark = None if asked.get("id") is None else parts.text(asked, "id", "the request")
    inputs = parts.objects(asked, "inputs")
    if len(inputs) != 1:
        raise Refusal(400, f"Give exactly one input of {', '.join(INPUTS)}, got {len(inputs)}.")
    given = parts.parameters(asked, "the request")
    binary = parts.flag(given, "binary_data_output", "the request", False)
    return Inference(mark, _read_input(inputs[0], view[end:]), given, _read_outputs(asked, binary))


def _end(body: bytes, length: str | None) -> int:
    """Return where the JSON ends."""
    if length is None:
        return len(body)
    if not (length.isascii() and length.isdigit()) or len(length) > 18 or int(length) > len(body):
        raise Refusal(400, f"{HEADER} must be a number of bytes within the body's {len(body):,}, got {brief(length)}.")
    return int(length)


def _read_input(given: dict[str, Any], behind: memoryview) -> Tensor:
    """Return the input, whose bytes are all that stands behind the JSON."""
    name = parts.text(given, "name", "the input")
    if name not in INPUTS:
        raise Refusal(400, f"There is no input {brief(name)}.{did_you_mean(name[:80], INPUTS)} Known: {', '.join(INPUTS)}.")
    where = f"the input {name}"
    datatype = parts.text(given, "datatype", where)
    if datatype not in DATATYPES and datatype != BYTES:
        raise Refusal(400, f"{where}: there is no datatype {brief(datatype)}. Known: {', '.join(DATATYPES)}, {BYTES}.")
    shape = read_shape(given.get("shape"), where)
    return Tensor(name, datatype, shape, _read_values(given, datatype, shape, where, behind))


def _read_values(given: dict[str, Any], datatype: str, shape: tuple[int, ...], where: str, behind: memoryview) -> Values:
    told = parts.parameters(given, where)
    if SHARED in told:
        raise Refusal(400, f"{where}: there is no shared memory here. Send the data.")
    data, size = given.get("data"), told.get("binary_data_size")
    if (data is None) == (size is None):
        raise Refusal(400, f"{where}: give either data or the parameter binary_data_size with the bytes behind the JSON.")
    if size is None:
        if behind:
            raise Refusal(400, f"{where}: {len(behind):,} bytes behind the JSON belong to no input.")
        return from_json(data, datatype, shape, where, in_base64=told.get("content_type") == BASE64)
    if type(size) is not int or size != len(behind):
        raise Refusal(400, f"{where}: binary_data_size is {brief(size)}, and behind the JSON are {len(behind):,} bytes.")
    return from_binary(behind, datatype, shape, where)


def _read_outputs(asked: dict[str, Any], binary: bool) -> tuple[Wanted, ...]:
    """Return the outputs; without any named the usual ones."""
    named = parts.objects(asked, "outputs")
    if not named:
        return tuple(Wanted(name, binary) for name in DEFAULTS)
    found = tuple(_read_output(one, binary) for one in named)
    names = [wanted.name for wanted in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise Refusal(400, f"The output {twice} is asked for twice.")
    return found


def _read_output(given: dict[str, Any], binary: bool) -> Wanted:
    name = parts.text(given, "name", "an output")
    if name not in OUTPUTS:
        raise Refusal(400, f"There is no output {brief(name)}.{did_you_mean(name[:80], OUTPUTS)} Known: {', '.join(OUTPUTS)}.")
    where = f"the output {name}"
    told = parts.parameters(given, where)
    if SHARED in told:
        raise Refusal(400, f"{where}: there is no shared memory here. Take the data from the answer.")
    if told.get("classification"):
        raise Refusal(400, f"{where}: classification is not done here. Ask for the outputs targets, labels and probabilities.")
    return Wanted(name, parts.flag(told, "binary_data", where, binary))
