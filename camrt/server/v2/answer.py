"""The answer: JSON alone, or JSON and the bytes of tensors right behind it, as each output was asked for."""

from __future__ import annotations

import json
from typing import Any

from fastapi.responses import Response

from camrt.server.v2.inference import BASE64, HEADER, Inference, Wanted
from camrt.server.v2.outputs import OUTPUTS, Found
from camrt.server.v2.parts import Scalar
from camrt.server.v2.tensors import Tensor, to_binary, to_json

VERSION = "1"  # of every model: a bundle has no others
JSON, BINARY = "application/json", "application/octet-stream"


def written(model: str, inference: Inference, found: Found, told: dict[str, Scalar]) -> Response:
    """Return the answer to a request.

    Parameters
    ----------
    told : dict
        What really ran, for the answer's parameters.

    Raises
    ------
    Refusal
        422: JSON cannot tell values that are not finite, or would be too large.
    """
    tensors = [OUTPUTS[wanted.name].tensor(wanted.name, found) for wanted in inference.outputs]
    blobs: list[bytes] = []
    outputs = [_entry(tensor, wanted, blobs) for tensor, wanted in zip(tensors, inference.outputs, strict=True)]
    mark = {} if inference.id is None else {"id": inference.id}
    head = json.dumps({"model_name": model, "model_version": VERSION, **mark, "parameters": told, "outputs": outputs}).encode()
    if not any(wanted.binary for wanted in inference.outputs):
        return Response(head, media_type=JSON)
    return Response(b"".join((head, *blobs)), media_type=BINARY, headers={HEADER: str(len(head))})


def _entry(tensor: Tensor, wanted: Wanted, blobs: list[bytes]) -> dict[str, Any]:
    """Return an output's part of the JSON; its bytes, if any, join the blobs."""
    entry: dict[str, Any] = {"name": tensor.name, "shape": list(tensor.shape), "datatype": tensor.datatype}
    if wanted.binary:
        blobs.append(to_binary(tensor.values))
        return entry | {"parameters": {"binary_data_size": len(blobs[-1])}}
    in_base64 = OUTPUTS[tensor.name].in_base64
    if in_base64:
        entry["parameters"] = {"content_type": BASE64}
    return entry | {"data": to_json(tensor.values, f"The output {tensor.name}", in_base64=in_base64)}
