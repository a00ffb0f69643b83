"""A server in this process, and a client of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from fastapi.testclient import TestClient

import camrt
from camrt.server.app import create_app
from camrt.server.options import Options
from camrt.server.samples import find_samples
from camrt.server.service import Service
from tests.conftest import SAMPLES

HEART, STAR = ((SAMPLES / name).read_bytes() for name in ("heart.png", "star.png"))


@contextlib.contextmanager
def running(*explainers: camrt.Explainer, **options: Any) -> Iterator[tuple[TestClient, Service]]:
    """Give a client of a server of these explainers, or of the built-in bundle, and the service behind it."""
    given = explainers or (camrt.load("shapes", providers=["cpu"]),)
    service = Service({e.manifest.name: lambda e=e: e for e in given}, Options(samples=find_samples(None), **options))
    service.load()
    with TestClient(create_app(service), base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client, service
