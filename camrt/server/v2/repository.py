"""The model repository: which models there are; loading and unloading those that the command line named."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter, Request

from camrt.server.body import read_body
from camrt.server.errors import Refusal
from camrt.server.model import Model, State
from camrt.server.service import Service
from camrt.server.v2 import parts
from camrt.server.v2.answer import VERSION
from camrt.server.v2.parts import Scalar
from camrt.server.v2.schema import POSTS, READS, IndexEntry, optional_json, problems

STATES = {State.READY: "READY", State.LOADING: "LOADING"}  # others are unavailable
REASONS = {State.UNLOADED: "unloaded", State.FAILING: "it fails; the server's log says why"}
CHANGED, PARAMETERS = problems(*READS, *POSTS, 404), optional_json(parameters={"type": "object"})
READY_ONLY = {"ready": {"type": "boolean", "description": "Leave out models that are not ready"}}


def add_repository(router: APIRouter, service: Service) -> None:
    """Add the model repository's routes."""

    @router.post("/repository/index", responses=problems(*READS, *POSTS), openapi_extra=optional_json(**READY_ONLY))
    async def index(request: Request) -> list[IndexEntry]:
        """List the models, loaded or not."""
        asked = await _small(service, request)
        only = parts.flag(asked, "ready", "the request", False)
        return [_entry(model) for model in service.models if model.state is State.READY or not only]

    @router.post("/repository/models/{model}/load", responses=CHANGED, openapi_extra=PARAMETERS)
    async def load(request: Request, model: str) -> dict[str, str]:
        """Load a model that the command line named, from where it named it."""
        found = await _changed(service, request, model, {})
        await service.models.load(found)
        if found.state is not State.READY:
            raise Refusal(503, f"The model {found.name!r} is not ready: {found.state}.", {"Retry-After": "5"})
        return {}

    @router.post("/repository/models/{model}/unload", responses=CHANGED, openapi_extra=PARAMETERS)
    async def unload(request: Request, model: str) -> dict[str, str]:
        """Let go of a model."""
        await service.models.unload(await _changed(service, request, model, {"unload_dependents": False}))
        return {}


async def _small(service: Service, request: Request) -> dict[str, Scalar]:
    """Return the JSON of a body that may be empty."""
    async with read_body(request, service.options, service.uploads) as body:
        return parts.read_object(body) if body.strip() else {}


async def _changed(service: Service, request: Request, name: str, allowed: Mapping[str, Scalar]) -> Model:
    """Return the model that a request may load or unload; its parameters can name no file and no configuration."""
    if service.options.read_only:
        raise Refusal(403, "This server is read-only: models are neither loaded nor unloaded by request.")
    model = service.models.named(name)
    for key in parts.parameters(await _small(service, request), "the request"):
        if key not in allowed:
            raise Refusal(400, f"The parameter {key[:80]!r} is not taken: models are those of the server's command line.")
    return model


def _entry(model: Model) -> IndexEntry:
    state = STATES.get(model.state, "UNAVAILABLE")
    return IndexEntry(name=model.name, version=VERSION, state=state, reason=REASONS.get(model.state, ""))
