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


@contextlib.contextmanager
def listening(*explainers: camrt.Explainer, **options: Any) -> Iterator[tuple[str, Service]]:
    """Give the address of such a server on a real socket, in a thread of this process, and the service behind it."""
    import threading
    import time

    import uvicorn

    from camrt.server.run import bound, config_of

    given = explainers or (camrt.load("shapes", providers=["cpu"]),)
    service = Service({e.manifest.name: lambda e=e: e for e in given}, Options(samples=find_samples(None), **options))
    service.load()
    with bound("127.0.0.1", 0) as sock:
        server = uvicorn.Server(config_of(service))
        thread = threading.Thread(target=server.run, args=([sock],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}", service
        finally:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive(), "the server does not end"
