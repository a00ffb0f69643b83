"""The plain face's routes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from inspect import signature
from mimetypes import guess_type
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from starlette.datastructures import QueryParams

from camrt.errors import did_you_mean
from camrt.explainer import DEFAULT_METHOD
from camrt.server.errors import Refusal
from camrt.server.patience import unless_gone, within
from camrt.server.pictures import NONE, OVERLAY, Look
from camrt.server.service import Service
from camrt.server.told import facts
from camrt.server.v1.answer import answer_bytes, response, write
from camrt.server.v1.listing import method_answer, model_answer
from camrt.server.v1.media import JSON, NPY, PNG, media_type
from camrt.server.v1.photo import photo_of, sample_of
from camrt.server.v1.schema import BODY, PHOTO, PROBLEMS, Answer, MethodAnswer, ModelAnswer

SEVERAL = ("target", "param")  # which may be repeated


def routes(service: Service) -> APIRouter:
    """Return the plain face of a service."""
    router = APIRouter(prefix="/v1")
    options = service.options

    @router.get("/models", responses={s: PROBLEMS[s] for s in (401, 403)})
    async def models() -> list[ModelAnswer]:
        """List the models, and what can be asked of each."""
        return [model_answer(model, options) for model in service.models]

    @router.get("/methods", responses={s: PROBLEMS[s] for s in (401, 403)})
    async def methods() -> list[MethodAnswer]:
        """List the methods that this server offers, with their parameters."""
        return [method_answer(name) for name in options.methods]

    @router.get("/samples", responses={s: PROBLEMS[s] for s in (401, 403)})
    async def samples() -> list[str]:
        """List the sample photos."""
        return list(options.samples)

    @router.get("/samples/{name}", response_class=Response, responses={s: PROBLEMS[s] for s in (401, 403, 404, 422)})
    async def sample(name: str) -> Response:
        """Return a sample photo."""
        return Response(sample_of(service, name), media_type=guess_type(options.samples[name])[0])

    @router.post(
        "/explain",
        response_model=Answer,
        responses=PROBLEMS | {200: {"content": {PNG: PHOTO, NPY: PHOTO}, "description": "As `Accept` asks"}},
        openapi_extra=BODY,
    )
    async def explain(
        request: Request,
        model: Annotated[str | None, Query(description="By default the first")] = None,
        method: Annotated[str, Query(description="/v1/methods lists them")] = DEFAULT_METHOD,
        target: Annotated[list[str] | None, Query(description="Class by index or label; may be repeated")] = None,
        top: Annotated[int | None, Query(description="Explain so many of the most probable classes")] = None,
        versus: Annotated[str | None, Query(description="Explain why the target and not this class")] = None,
        clusters: Annotated[str | None, Query(description="Of methods that cluster: a number, or auto")] = None,
        param: Annotated[list[str] | None, Query(description="Another parameter of the method, NAME=VALUE")] = None,
        image: Annotated[
            Literal["overlay", "heatmap", "none"] | None,
            Query(
                description="What pictures show: the heatmap over the photo, the heatmap in grey, or there are none. "
                "By default none in JSON, the overlay as PNG"
            ),
        ] = None,
        alpha: Annotated[float, Query(ge=0, le=1, description="Weight of the heatmap over the photo")] = 0.5,
        colormap: Annotated[Literal["turbo", "inferno", "viridis", "jet"], Query(description="Of overlays")] = "turbo",
        longest: Annotated[int | None, Query(ge=1, description="Most pixels of the longer side of pictures and arrays")] = None,
        timeout: Annotated[float | None, Query(gt=0, description="Seconds; the server's own limit holds too")] = None,
        photo: Annotated[str | None, Query(description="A photo that an earlier answer named")] = None,
        sample: Annotated[str | None, Query(description="A sample photo")] = None,
    ) -> Response:
        """Name what a photo shows, and show where the network looked.

        The photo is the body, or the field `photo` of a form. With `Accept: application/json`, the default, the answer holds
        the prediction, the targets with their pictures, and what it took; with `image/png` it is the first target's picture,
        with `application/x-npy` the heatmaps (targets, height, width), float32 in [0, 1].
        """  # fmt: skip
        started = asyncio.get_running_loop().time()
        _check_query(request.query_params, signature(explain).parameters)
        media, look = media_type(request.headers.get("accept", "")), Look(alpha, colormap, longest)
        kind = image or (NONE if media == JSON else OVERLAY)
        if media == PNG and kind == NONE:
            raise Refusal(406, "A PNG shows an overlay or a heatmap; leave out image=none.")
        asked = service.models.answering(model)
        question = service.question(asked, method, _parameters(param, clusters), targets=target, top=top, versus=versus)
        async with photo_of(request, service, photo, sample) as (encoded, name), within(timeout, started):
            images = await request.state.held.enter_async_context(
                service.prepared(asked, [encoded], lambda h, w: answer_bytes(media, kind, question.count, look, (h, w)))
            )
            (explanation,) = await unless_gone(request, service.explain(asked, [question], images))
            written = await service.in_hands(write, explanation, media, kind, look, options.max_pixels)
            service.counters.explained(asked.name, explanation, {"render": written.render})
            request.state.facts = facts(asked, [explanation])
            return response(written, asked, name or service.kept.keep(encoded))

    return router


def _parameters(given: Sequence[str] | None, clusters: str | None) -> dict[str, str]:
    """Return the parameters of the method."""
    pairs = [text.partition("=") for text in given or ()]
    for name, equals, _ in pairs:
        if not equals or not name:
            raise Refusal(422, f"param must be NAME=VALUE, for instance clusters=32; got {name[:100]!r}.")
    found = {name: value for name, _, value in pairs}
    if len(found) < len(pairs) or (clusters is not None and "clusters" in found):
        raise Refusal(422, "A parameter of the method is given twice. Leave out one.")
    return found if clusters is None else found | {"clusters": clusters}


def _check_query(given: QueryParams, known: Iterable[str]) -> None:
    """Refuse parameters that there are not, which would change nothing in silence, and single ones that are given twice."""
    names = [name for name in known if name != "request"]
    for name in given:
        if name not in names:
            told = f"There is no parameter {name[:100]!r}.{did_you_mean(name[:100], names)} Known: {', '.join(names)}."
            raise Refusal(422, f"{told} Parameters of the method go as param=NAME=VALUE.")
        if len(given.getlist(name)) > 1 and name not in SEVERAL:
            raise Refusal(422, f"The parameter {name} is given {len(given.getlist(name))} times. Leave out all but one.")
