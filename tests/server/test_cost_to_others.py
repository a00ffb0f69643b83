"""What one client does must not keep others waiting, nor fill the memory."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi")

from .client import HEART, listening
from .fuzz import request, sent
from .test_chaos import connect  # noqa: F401  # a fixture
from .test_gate import _until


@pytest.fixture(scope="module")
def server(shapes):
    with listening(shapes, header_timeout=5, hosts=("127.0.0.1",)) as (url, service):
        yield url, service


def longest_wait(url: str, during) -> float:
    """Return the longest that another client waits for health while something is done."""
    where, waits, ended = urlsplit(url), [], threading.Event()

    def probe() -> None:
        while not ended.is_set():
            started = time.perf_counter()
            connection = http.client.HTTPConnection(where.hostname, where.port, timeout=30)
            connection.request("GET", "/v2/health/live")
            connection.getresponse().read()
            connection.close()
            waits.append(time.perf_counter() - started)
            time.sleep(0.01)

    thread = threading.Thread(target=probe)
    thread.start()
    during()
    time.sleep(0.2)
    ended.set()
    thread.join()
    return max(waits)


@pytest.mark.parametrize("verb", ["GET", "POST"])
def test_the_smallest_chunks_keep_nobody_waiting(server, connect, verb):  # noqa: F811
    url, _ = server

    def chunks() -> None:
        many = [connect(url) for _ in range(4)]
        end = time.monotonic() + 1.5
        for one in many:
            one.settimeout(0.05)
            one.sendall(f"{verb} /v2 HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        while time.monotonic() < end:
            for one in many:
                try:
                    one.send(b"1\r\nx\r\n" * 5000)
                except OSError:
                    pass

    assert longest_wait(url, chunks) < 3  # seconds; seven to twelve where all that had come was parsed at once


@pytest.mark.parametrize("body", [
    b'{"inputs": {' + b",".join(b'"%d": 1' % i for i in range(400_000)) + b"}}",
    b'{"inputs": [' + b"1e-300," * 2_000_000 + b"1]}",
    b'{"parameters": {' + b",".join(b'"triton_%d": 1' % i for i in range(200_000)) + b"}}",
], ids=["keys", "numbers", "parameters"])  # fmt: skip
def test_json_of_millions_of_parts_is_refused_before_it_is_read(server, body):
    url, _ = server
    statuses = []
    assert longest_wait(url, lambda: statuses.append(sent(url, request("/v2/models/shapes/infer", body), 20))) < 3
    assert statuses == [400]


def test_announced_bytes_take_no_room(server, connect):  # noqa: F811
    url, service = server
    for _ in range(30):
        connect(url).sendall(b"POST /v1/explain HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 16000000\r\n\r\nx")
    _until(lambda: service.counters.under_way._value.get() == 30)
    assert service.uploads.used <= 30


def test_an_unpacked_body_takes_room_as_it_is(shapes):
    import gzip

    packed = request("/v1/explain", gzip.compress(bytes(300_000)), {"Content-Encoding": "gzip"})
    with listening(shapes, max_body=400_000, max_uploads=400_000) as (url, service):
        assert service.uploads.take_now(200_000)
        assert sent(url, packed, 10) == 503
        service.uploads.give_back(200_000)
        assert sent(url, packed, 10) == 400  # zeros are no photo
        assert service.uploads.used == 0


def test_answers_that_nobody_reads_are_counted_until_they_have_left(shapes, connect):  # noqa: F811
    photo = cv2.imencode(".png", np.zeros((1500, 1500, 3), np.uint8))[1].tobytes()
    asked = request("/v1/explain?method=grad-cam", photo, {"Accept": "application/x-npy"})  # answered by 9 MB
    with listening(shapes, requests=3, timeout=4) as (url, service):
        deaf = [connect(url, room=4096) for _ in range(3)]
        for one in deaf:
            one.sendall(asked)
        _until(lambda: service.counters.under_way._value.get() == 3)
        time.sleep(1)
        assert service.decoded.used > 0, "an answer holds its room until it was read"
        assert sent(url, request("/v1/explain", HEART), 10) == 503
        _until(lambda: service.counters.under_way._value.get() == 0, 20)
        assert service.decoded.used == 0
        assert sent(url, request("/v1/explain", HEART), 10) == 200


@pytest.mark.parametrize("host", [b"[", b"[zz]", b"a b", b"127.0.0.1:x", b"evil@127.0.0.1", b"127.0.0.1/x"])
def test_a_host_that_is_none_is_refused(server, host):
    url, _ = server
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port), 10) as connection:
        connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost: " + host + b"\r\nOrigin: http://[\r\nConnection: close\r\n\r\n")
        assert connection.recv(12) in (b"HTTP/1.1 403", b"HTTP/1.1 400")


def test_an_answer_stays_with_the_bundle_that_gave_it(shapes, tiny, monkeypatch):
    from importlib import import_module

    from .client import running
    from .test_v1 import explain

    routes = import_module("camrt.server.v1.routes")
    real = routes.write
    with running(shapes) as (client, service):
        model = service.models.named("shapes")

        def exchanged(*arguments):
            model._explainer = tiny
            return real(*arguments)

        monkeypatch.setattr(routes, "write", exchanged)
        told = explain(client).json()
        assert told["targets"][0]["label"] == told["prediction"][0]["label"] == "heart"
