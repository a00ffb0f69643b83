"""The photo that a request is about: its body, a form's field, one that was kept, or a sample."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from camrt.server.body import read_body
from camrt.server.errors import Refusal
from camrt.server.service import Service


@asynccontextmanager
async def photo_of(
    request: Request, service: Service, kept: str | None, sample: str | None
) -> AsyncIterator[tuple[bytes, str | None]]:
    """Give the photo that a request is about, and the name by which it was kept.

    Raises
    ------
    Refusal
        400: there is none; 404: it is not remembered; 422: there are several; and as `read_body`.
    """
    async with read_body(request, service.options, service.uploads) as body:
        if sum((kept is not None, sample is not None, bool(body))) > 1:
            raise Refusal(422, "Give one of a body, photo and sample, not several.")
        if kept is not None:
            known = service.kept.get(kept)
            if known is None:
                raise Refusal(404, "No photo of that name is known, or it is not remembered any more. Send it again.")
            yield known, kept
        elif sample is not None:
            yield sample_of(service, sample), None
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


def sample_of(service: Service, name: str) -> bytes:
    """Return a sample photo.

    Raises
    ------
    Refusal
        404: there is none of that name.
    """
    if name not in service.options.samples:
        raise Refusal(404, "There is no sample of that name; /v1/samples lists them.")
    return service.options.samples[name].read_bytes()
