"""The protocol's routes: health, metadata and inference, and the model repository's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import JSONResponse, Response

from camrt import __version__
from camrt.server.errors import Refusal
from camrt.server.model import Model, State
from camrt.server.service import Service
from camrt.server.v2 import schema
from camrt.server.v2.answer import VERSION
from camrt.server.v2.infer import infer
from camrt.server.v2.inputs import INPUTS
from camrt.server.v2.outputs import OUTPUTS
from camrt.server.v2.repository import add_repository
from camrt.server.v2.schema import POSTS, READS, TensorMetadata, problems

EXTENSIONS = ["binary_tensor_data", "model_repository", "parameters"]
PLATFORM = "onnxruntime_camrt"
Name = Annotated[str, Path(description="As the repository's index lists it", examples=["shapes"])]
Version = Annotated[str, Path(examples=[VERSION])]


def routes(service: Service) -> APIRouter:
    """Return the protocol's face of a service."""
    router = APIRouter(prefix="/v2")

    @router.get("", responses=problems(*READS))
    async def server() -> schema.ServerMetadata:
        """Tell what the server is."""
        return schema.ServerMetadata(name="camrt", version=__version__, extensions=EXTENSIONS)

    @router.get("/health/live", responses=problems(403, 500, 504))
    async def live() -> schema.Live:
        """Tell that the server runs."""
        return schema.Live(live=True)

    @router.get(
        "/health/ready", response_model=schema.Ready, responses=problems(403, 500, 504) | {503: {"model": schema.Ready}}
    )
    async def ready() -> Response:
        """Tell whether the server would answer."""
        return JSONResponse({"ready": service.ready, "live": True}, 200 if service.ready else 503)

    async def versioned(model: Name, version: Version) -> Model:
        if version != VERSION:
            raise Refusal(404, f"There is no version {version[:80]!r} of a model; every model has version {VERSION!r}.")
        return service.models.named(model)

    async def named(model: Name) -> Model:
        return service.models.named(model)

    _add_model(router, service, "/models/{model}", named)
    _add_model(router, service, "/models/{model}/versions/{version}", versioned)
    add_repository(router, service)
    return router


def _add_model(router: APIRouter, service: Service, prefix: str, find: Callable[..., Any]) -> None:
    """Add a model's routes under a prefix, whose parameters lead to the model."""
    of_path = Depends(find)

    @router.get(prefix, responses=problems(*READS, 404, 503))
    async def metadata(found: Model = of_path) -> schema.ModelMetadata:
        """Tell a model's inputs and outputs."""
        manifest = service.models.answering(found.name).manifest
        inputs = {name: (one.datatype, one.shapes(manifest)[0]) for name, one in INPUTS.items()}
        outputs = {name: (one.datatype, one.shape(manifest)) for name, one in OUTPUTS.items()}
        return schema.ModelMetadata(
            name=found.name, versions=[VERSION], platform=PLATFORM,
            inputs=_tensors(inputs), outputs=_tensors(outputs),
        )  # fmt: skip

    @router.get(
        f"{prefix}/ready", response_model=schema.ModelReady,
        responses=problems(*READS, 404) | {503: {"model": schema.ModelReady}},
    )  # fmt: skip
    async def model_ready(found: Model = of_path) -> Response:
        """Tell whether a model would answer."""
        able = found.state is State.READY and not service.closing and service.dispatcher.alive
        return JSONResponse({"name": found.name, "ready": able}, 200 if able else 503)

    @router.post(
        f"{prefix}/infer", response_model=schema.InferAnswer, openapi_extra=schema.INFER,
        responses=problems(*READS, *POSTS, 404) | schema.ANSWERED,
    )  # fmt: skip
    async def model_infer(request: Request, found: Model = of_path) -> Response:
        """Name what images show, and show where the network looked: the outputs that are asked for.

        Bring one of the inputs image, pixels and photo. Without outputs named, logits, probabilities, targets, heatmap and
        outcomes are answered. With only logits, probabilities, targets and labels nothing is explained, and one pass is enough.
        """
        return await infer(service, request, service.models.answering(found.name))


def _tensors(told: dict[str, tuple[str, tuple[int, ...]]]) -> list[TensorMetadata]:
    return [TensorMetadata(name=name, datatype=datatype, shape=list(shape)) for name, (datatype, shape) in told.items()]
