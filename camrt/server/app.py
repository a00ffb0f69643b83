"""The application: its routes, and the layers that each request passes, as one visible list."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from camrt import __version__
from camrt.errors import CamrtError
from camrt.server import v1, v2
from camrt.server.errors import Refusal, refusal_of
from camrt.server.gate import Gate
from camrt.server.headers import SafeHeaders
from camrt.server.journal import Journal, refused
from camrt.server.pieces import Pieces
from camrt.server.rest import Rest
from camrt.server.service import Service

MEDIA = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


def create_app(service: Service) -> ASGIApp:
    """Return the ASGI application of a service; its lifespan starts and stops it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    api = FastAPI(
        title="camrt", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan,
        summary="Prediction and heatmap from one call.",
    )  # fmt: skip
    api.include_router(v1.routes(service))
    api.include_router(v2.routes(service))
    _add_pages(api, service)
    _add_errors(api)
    app: ASGIApp = api
    for layer in (
        Pieces,
        lambda inner: Gate(inner, service.options, service.counters, lambda: service.patience),
        SafeHeaders,
        lambda inner: Journal(inner, service.counters),
        Rest,
    ):  # the last is the outermost
        app = layer(app)
    return app


def _add_pages(api: FastAPI, service: Service) -> None:
    """Add the page, its parts, and what monitors read."""
    folder = Path(__file__).parent / "page"
    parts = {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix in MEDIA}

    def part(name: str) -> Response:
        return Response(parts[name], media_type=MEDIA[Path(name).suffix], headers={"Cache-Control": "no-cache"})

    @api.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def index() -> Response:
        return part("index.html")

    @api.api_route("/docs", methods=["GET", "HEAD"], include_in_schema=False)
    async def docs() -> Response:
        return part("docs.html")

    @api.api_route("/static/{name}", methods=["GET", "HEAD"], include_in_schema=False)
    async def static(name: str) -> Response:
        if name not in parts:
            raise Refusal(404, "There is no such file.")
        return part(name)

    @api.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return PlainTextResponse(service.counters.text(), media_type="text/plain; version=0.0.4")


def _add_errors(api: FastAPI) -> None:
    """Answer every error as {"error": text}."""

    async def known(_: Request, error: Exception) -> Response:
        return refused(refusal_of(error))

    async def misused(_: Request, error: Any) -> Response:
        told = "; ".join(f"{'.'.join(map(str, e['loc'][1:])) or e['loc'][0]}: {e['msg']}" for e in error.errors()[:5])
        return refused(Refusal(422, f"The request is not understood: {told[:1000]}"))

    async def http(_: Request, error: Any) -> Response:
        texts = {404: "There is nothing at this address; /docs tells what there is.", 405: "This address takes another method."}
        return refused(Refusal(error.status_code, texts.get(error.status_code, str(error.detail)), error.headers))

    api.add_exception_handler(RequestValidationError, misused)
    api.add_exception_handler(HTTPException, http)
    for kind in (Refusal, CamrtError, Exception):
        api.add_exception_handler(kind, known)
