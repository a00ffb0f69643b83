"""What the protocol's answers and requests look like, as OpenAPI describes them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from camrt.server.v1.schema import Problem
from camrt.server.v2.inference import HEADER
from camrt.server.v2.inputs import INPUTS
from camrt.server.v2.outputs import OUTPUTS
from camrt.server.v2.tensors import BYTES, DATATYPES


class Live(BaseModel):
    """The server runs."""

    live: bool


class Ready(Live):
    """The server would answer."""

    ready: bool


class ServerMetadata(BaseModel):
    """What the server is."""

    name: str = Field(examples=["camrt"])
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """An input or output of a model."""

    name: str
    datatype: str
    shape: list[int] = Field(description="-1 where it varies")


class ModelMetadata(BaseModel):
    """What a model is."""

    name: str = Field(examples=["shapes"])
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata] = Field(description="A request brings exactly one of them")
    outputs: list[TensorMetadata]


class ModelReady(BaseModel):
    """Whether a model would answer."""

    name: str
    ready: bool


class IndexEntry(BaseModel):
    """A model of the repository."""

    name: str
    version: str
    state: str = Field(description="READY, LOADING or UNAVAILABLE")
    reason: str


class OutputTensor(BaseModel):
    """An output: its values in `data`, or behind the JSON as many bytes as `binary_data_size` says."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, int | str] | None = None
    data: list[Any] | None = None


class InferAnswer(BaseModel):
    """What a model found."""

    model_config = ConfigDict(protected_namespaces=())
    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[str, bool | int | float | str] = Field(description="What really ran: method, passes, provider, notes")
    outputs: list[OutputTensor]


TEXTS = {
    400: "The request is not as the protocol has it, or a photo cannot be read", 401: "A token is needed",
    403: "Not allowed here, or asked in another site's name", 404: "There is no such model or version",
    408: "The body came too slowly", 413: "The body is too large", 415: "The Content-Encoding is unknown",
    422: "What is asked is not there, or not allowed", 429: "Too many requests of this client are under way",
    500: "The server failed", 503: "Too much is under way, or the model cannot answer now", 504: "It took too long",
}  # fmt: skip
READS, POSTS = (401, 403, 422, 500, 504), (400, 408, 413, 415, 429, 503)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return how OpenAPI describes answers of these statuses."""
    return {status: {"model": Problem, "description": TEXTS[status]} for status in sorted(statuses)}


# --- what comes in ----------------------------------------------------------------------------------------------------------
BLOB = {"schema": {"type": "string", "format": "binary"}}
PARAMETERS = {
    "type": "object",
    "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
}
ANSWERED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": f"JSON, or JSON and the outputs' bytes behind it, which {HEADER} tells apart",
        "content": {"application/octet-stream": BLOB},
    }
}
_INPUT = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string", "enum": list(INPUTS)},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "datatype": {"type": "string", "enum": [*DATATYPES, BYTES]},
        "parameters": PARAMETERS,
        "data": {"type": "array", "items": {}},
    },
}
_OUTPUT = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string", "enum": list(OUTPUTS)}, "parameters": PARAMETERS},
}
_REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "parameters": PARAMETERS
        | {
            "description": "method, target, targets (with commas between them), top, versus, the method's own parameters, "
            "timeout in microseconds; of overlays alpha, colormap and longest"
        },
        "inputs": {"type": "array", "items": _INPUT, "minItems": 1, "maxItems": 1},
        "outputs": {"type": "array", "items": _OUTPUT},
    },
    "example": {
        "parameters": {"method": "grad-cam", "top": 2},
        "inputs": [{"name": "pixels", "shape": [1, 1, 2, 3], "datatype": "UINT8", "data": [255, 0, 0, 0, 0, 255]}],
        "outputs": [{"name": "labels"}, {"name": "maps"}],
    },
}
INFER: dict[str, Any] = {
    "parameters": [
        {
            "name": HEADER, "in": "header", "required": False, "schema": {"type": "integer", "minimum": 0},
            "description": "Length of the JSON in a body that has tensors' bytes behind it",
        }
    ],
    "requestBody": {"required": True, "content": {"application/json": {"schema": _REQUEST}, "application/octet-stream": BLOB}},
}  # fmt: skip


def optional_json(**properties: Any) -> dict[str, Any]:
    """Return how OpenAPI describes a small JSON object that may be left out."""
    schema = {"type": "object", "properties": properties}
    return {"requestBody": {"required": False, "content": {"application/json": {"schema": schema}}}}
