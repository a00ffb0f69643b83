"""The plain face, for people: POST /v1/explain with a photo; /v1/models, /v1/methods and /v1/samples."""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from mimetypes import guess_type
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from camrt.case import probabilities
from camrt.explainer import DEFAULT_METHOD
from camrt.explanation import Explanation
from camrt.methods import GRADIENTS, METHODS
from camrt.server import answers
from camrt.server.answers import Answer, Limits, MethodAnswer, ModelAnswer, Problem
from camrt.server.body import read_body
from camrt.server.errors import Refusal
from camrt.server.model import Model
from camrt.server.options import Options
from camrt.server.patience import unless_gone
from camrt.server.pictures import NONE, OVERLAY, check_area, npy, pictures, shrunk
from camrt.server.service import Service
from camrt.server.told import facts

NAMED = 5  # classes of a prediction
JSON, PNG, NPY = "application/json", "image/png", "application/x-npy"
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text}
    for status, text in {
        400: "The photo or the request cannot be read", 401: "A token is needed", 403: "Asked in another site's name",
        404: "There is no such model, sample or kept photo", 406: "None of the media types can be had",
        408: "The body came too slowly", 413: "The body is too large", 415: "The Content-Encoding is unknown",
        422: "What is asked is not there, or not allowed", 429: "Too many requests of this client are under way",
        500: "The server failed", 503: "Too much is under way, or the model cannot answer now", 504: "It took too long",
    }.items()
}  # fmt: skip
PHOTO = {"schema": {"type": "string", "format": "binary"}}
BODY = {
    "requestBody": {
        "description": "The photo: JPEG, PNG, WebP, BMP, GIF or TIFF; none with `photo` or `sample`",
        "required": False,
        "content": {
            "image/*": PHOTO,
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"photo": PHOTO["schema"]}, "required": ["photo"]}
            },
        },
    }
}


def routes(service: Service) -> APIRouter:
    """Return the plain face of a service."""
    router = APIRouter(prefix="/v1")
    options = service.options

    @router.get("/models", responses={s: PROBLEMS[s] for s in (401, 403)})
    async def models() -> list[ModelAnswer]:
        """List the models, and what can be asked of each."""
        return [_described(model, options) for model in service.models]

    @router.get("/methods", responses={s: PROBLEMS[s] for s in (401, 403)})
    async def methods() -> list[MethodAnswer]:
        """List the methods that this server offers, with their parameters."""
        return [_method(name) for name in options.methods]

    @router.get("/samples", responses={s: PROBLEMS[s] for s in (401, 403)})
    async def samples() -> list[str]:
        """List the sample photos."""
        return list(options.samples)

    @router.get("/samples/{name}", response_class=Response, responses={s: PROBLEMS[s] for s in (401, 403, 404, 422)})
    async def sample(name: str) -> Response:
        """Return a sample photo."""
        return Response(_sample(service, name), media_type=guess_type(options.samples[name])[0])

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
        photo: Annotated[str | None, Query(description="A photo that an earlier answer named")] = None,
        sample: Annotated[str | None, Query(description="A sample photo")] = None,
    ) -> Response:
        """Name what a photo shows, and show where the network looked.

        The photo is the body, or the field `photo` of a form. With `Accept: application/json`, the default, the answer holds
        the prediction, the targets with their pictures, and what it took; with `image/png` it is the first target's picture,
        with `application/x-npy` the heatmaps (targets, height, width), float32 in [0, 1].
        """  # fmt: skip
        wanted = _media_type(request.headers.get("accept", ""))
        asked = service.models.answering(model)
        parameters = _parameters(param, clusters)
        question = service.question(asked, method, parameters, targets=target, top=top, versus=versus)
        kind = image or (NONE if wanted == JSON else OVERLAY)
        if wanted == PNG and kind == NONE:
            raise Refusal(406, "A PNG shows an overlay or a heatmap; leave out image=none.")
        async with _photo(request, service, photo, sample) as (encoded, name):
            async with service.prepared(asked, [encoded]) as images:
                (explanation,) = await unless_gone(request, service.explain(asked, [question], images))
                small = await service.in_hands(shrunk, explanation, longest)
                if kind != NONE or wanted == NPY:
                    check_area(small, options.max_pixels)
                started = time.perf_counter()
                if wanted == NPY:
                    data = await service.in_hands(lambda: npy(small.heatmap))
                    drawn = []
                else:
                    drawn = [] if kind == NONE else await service.in_hands(pictures, small, kind, alpha, colormap)
                    data = drawn[0] if drawn else b""
                after = {"render": (time.perf_counter() - started) * 1e3}
        service.counters.explained(asked.name, explanation, after)
        request.state.facts = facts(asked, [explanation])
        if wanted != JSON:
            return Response(data, media_type=wanted, headers=_headers(explanation))
        return JSONResponse(_answer(asked, explanation, drawn, after, name or service.kept.keep(encoded)))

    return router


# --- what comes in --------------------------------------------------------------------------------------------------------
@asynccontextmanager
async def _photo(
    request: Request, service: Service, kept: str | None, sample: str | None
) -> AsyncIterator[tuple[bytes, str | None]]:
    """Give the photo that a request is about, and the name by which it was kept."""
    async with read_body(request, service.options, service.uploads) as body:
        if sum((kept is not None, sample is not None, bool(body))) > 1:
            raise Refusal(422, "Give one of a body, photo and sample, not several.")
        if kept is not None:
            known = service.kept.get(kept)
            if known is None:
                raise Refusal(404, "The photo of that name is not remembered any more. Send it again.")
            yield known, kept
        elif sample is not None:
            yield _sample(service, sample), None
        elif not body:
            raise Refusal(400, "There is no photo: send one as the body, for instance curl --data-binary @photo.jpg.")
        elif request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            yield await _of_form(request.headers, body), None
        else:
            yield body, None


async def _of_form(headers: Headers, body: bytes) -> bytes:
    """Return the field `photo` of a form."""

    async def stream() -> AsyncIterator[bytes]:
        yield body

    try:
        parser = MultiPartParser(headers, stream(), max_files=8, max_fields=32, max_part_size=len(body))  # type: ignore[arg-type]
        parser.spool_max_size = len(body) + 1  # no temporary file: the body is in memory and bounded
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError, AttributeError) as error:
        raise Refusal(400, f"The form cannot be read: {getattr(error, 'message', error)}") from None
    try:
        photo = form.get("photo")
        if not isinstance(photo, UploadFile):
            raise Refusal(400, "The form has no file named photo, for instance curl -F photo=@photo.jpg.")
        return await photo.read()
    finally:
        await form.close()


def _sample(service: Service, name: str) -> bytes:
    if name not in service.options.samples:
        raise Refusal(404, "There is no sample of that name; /v1/samples lists them.")
    return service.options.samples[name].read_bytes()


def _parameters(given: Sequence[str] | None, clusters: str | None) -> dict[str, str]:
    """Return the parameters of the method."""
    pairs = [text.partition("=") for text in given or ()]
    for name, equals, _ in pairs:
        if not equals or not name:
            raise Refusal(422, f"param must be NAME=VALUE, for instance clusters=32; got {name[:100]!r}.")
    found = {name: value for name, _, value in pairs}
    return found if clusters is None else found | {"clusters": clusters}


def _media_type(accept: str) -> str:
    """Return which of the three forms of an answer a client likes best."""
    liked: dict[str, float] = {}
    for part in accept.lower().split(","):
        name, *rest = (piece.strip() for piece in part.split(";"))
        quality = next((piece[2:] for piece in rest if piece.startswith("q=")), "1")
        try:
            liked[name] = float(quality)
        except ValueError:
            liked[name] = 0.0
    any_of = {JSON: ("application/*", "*/*", ""), PNG: ("image/*",), NPY: ()}
    scores = {kind: max(liked.get(name, 0.0) for name in (kind, *wild)) for kind, wild in any_of.items()}
    best = max(scores, key=lambda kind: scores[kind])
    if scores[best] <= 0:
        raise Refusal(406, f"Answers are {JSON}, {PNG} or {NPY}.")
    return best


# --- what goes out --------------------------------------------------------------------------------------------------------
def _answer(
    model: Model, explanation: Explanation, drawn: Sequence[bytes], after: dict[str, float], name: str | None
) -> dict[str, Any]:
    told = explanation.to_json()
    for i, target in enumerate(told["targets"]):
        target["picture"] = base64.b64encode(drawn[i]).decode() if drawn else None
    milliseconds = told["milliseconds"] | {stage: round(ms, 3) for stage, ms in after.items()}
    return answers.explanation_answer(
        told, model=model.name, photo=name, prediction=_prediction(model, explanation), milliseconds=milliseconds
    )


def _prediction(model: Model, explanation: Explanation) -> list[dict[str, Any]]:
    manifest, logits = model.explainer.manifest, explanation.logits
    with np.errstate(invalid="ignore", over="ignore"):
        p = probabilities(logits, manifest.kind)
    best = np.argsort(-logits, kind="stable")[:NAMED]
    return [
        {"index": int(i), "label": manifest.label(int(i)), "probability": float(p[i]) if np.isfinite(p[i]) else None}
        for i in best
    ]


def _headers(explanation: Explanation) -> dict[str, str]:
    """Return what a picture or an array cannot say itself."""
    targets = ", ".join(f"{t.index}={t.probability:.6g} {t.outcome.word}" for t in explanation.targets)
    return {"X-Camrt-Targets": targets, "X-Camrt-Method": explanation.run.method, "X-Camrt-Passes": str(explanation.run.passes)}


def _described(model: Model, options: Options) -> ModelAnswer:
    limits = Limits(
        targets=options.max_targets, clusters=options.max_clusters, pixels=options.max_pixels, body=options.max_body
    )
    if not model.loaded:
        return ModelAnswer(name=model.name, state=model.state, limits=limits)
    explainer = model.explainer
    manifest = explainer.manifest
    can = [n for n in options.methods if manifest.gradient_missing is None or GRADIENTS not in METHODS[n].needs]
    return ModelAnswer(
        name=model.name, state=model.state, classes=manifest.classes, labels=list(manifest.labels),
        input=list(manifest.image.shape[1:]), layer=manifest.layer.name, methods=can, provider=explainer.engine.provider,
        sha256=explainer.engine.bundle.sha256, limits=limits,
    )  # fmt: skip


def _method(name: str) -> MethodAnswer:
    method = METHODS[name]
    parameters = {
        key: {"default": p.default, "allowed": p.allowed, "choices": list(p.choices), "help": p.help}
        for key, p in method.parameters.items()
    }
    return MethodAnswer.model_validate(
        {
            "name": name,
            "passes": method.passes,
            "citation": method.citation,
            "needs": list(method.needs),
            "parameters": parameters,
        }
    )
