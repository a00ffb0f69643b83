"""The Open Inference Protocol, version 2, over HTTP: what Triton's and KServe's clients speak."""

from __future__ import annotations

from fastapi import APIRouter

from camrt.server.service import Service


def routes(service: Service) -> APIRouter:
    """Return the protocol's face of a service."""
    return APIRouter(prefix="/v2")
