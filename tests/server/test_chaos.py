"""Clients that hang, trickle, vanish and send garbage; servers that are told to end, and killed."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytest.importorskip("fastapi")

from tests.conftest import ROOT

from .client import HEART, listening
from .conftest import serving
from .fuzz import fuzz, request, sent
from .load import load, metric
from .soak import soak
from .test_gate import _until

HEAD = request("/v1/explain", HEART)


@pytest.fixture
def connect():
    """What opens connections, which are closed at the end of the test."""
    with contextlib.ExitStack() as stack:

        def connected(url: str, room: int | None = None) -> socket.socket:
            where = urlsplit(url)
            connection = stack.enter_context(socket.socket())
            if room is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
            connection.settimeout(30)
            connection.connect((where.hostname, where.port))
            return connection

        yield connected


def closed(connection: socket.socket, within: float) -> bool:
    """Tell whether the other side closes a connection in time, whatever it says before."""
    connection.settimeout(within)
    try:
        while connection.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def sound(url: str) -> bool:
    return sent(url, HEAD, 30) == 200


# --- clients --------------------------------------------------------------------------------------------------------------
def test_a_thousand_malformed_requests_get_proper_answers_and_sound_ones_between_them_succeed(served):
    found = fuzz(served.url, 1000, seed=1)
    assert found[400] > 100
    assert served.process.poll() is None
    assert metric(served.url, "camrt_requests_under_way") == metric(served.url, "camrt_upload_bytes") == 0


def test_a_client_that_says_nothing_or_half_a_head_is_closed(shapes, connect):
    with listening(shapes, header_timeout=0.5) as (url, _):
        silent, half = connect(url), connect(url)
        half.sendall(b"POST /v1/explain HTT")
        assert closed(silent, 5)
        assert closed(half, 5)
        trickling = connect(url)
        trickling.sendall(b"GET /v1/models HTTP/1.1\r\n")
        with pytest.raises(OSError):  # noqa: PT012
            for _ in range(100):
                trickling.sendall(b"X-Slow: 1\r\n")
                time.sleep(0.1)
        assert sound(url)


def test_a_second_head_that_trickles_on_a_kept_connection_is_closed_too(shapes, connect):
    with listening(shapes, header_timeout=0.5) as (url, _):
        kept = connect(url)
        kept.sendall(b"GET /v2 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert kept.recv(4096).startswith(b"HTTP/1.1 200")
        kept.sendall(b"GET /v2 HT")
        assert closed(kept, 5)


def test_a_body_that_trickles_is_408_and_gives_its_place_back(shapes, connect):
    with listening(shapes, upload_timeout=0.5, requests=2) as (url, service):
        slow = [connect(url) for _ in range(2)]
        for one in slow:
            one.sendall(HEAD[:-1000])
        _until(lambda: service.uploads.used > 0)
        assert [one.recv(12) for one in slow] == [b"HTTP/1.1 408"] * 2
        _until(lambda: service.uploads.used == 0)
        assert sound(url)


def test_clients_that_vanish_leave_nothing_behind(shapes, connect):
    with listening(shapes) as (url, service):
        for end in (100, len(HEAD) // 2, len(HEAD)):
            for _ in range(5):
                gone = connect(url)
                gone.sendall(HEAD[:end])
                gone.close()
        _until(lambda: service.counters.under_way._value.get() == 0)
        assert (service.uploads.used, service.decoded.used, service.dispatcher.waiting) == (0, 0, 0)
        assert sound(url)


def test_work_of_a_client_that_has_left_is_dropped(shapes, monkeypatch, connect):
    import camrt.server.model as module

    real, free, seen = module.answer, threading.Event(), []

    def slow(engine, questions, images, turns):
        seen.append(questions[0].settings["clusters"])
        free.wait(20)
        return real(engine, questions, images, turns)

    with listening(shapes) as (url, service):
        monkeypatch.setattr(module, "answer", slow)
        held, leaving = connect(url), connect(url)
        held.sendall(HEAD)
        _until(lambda: seen == [10])
        leaving.sendall(request("/v1/explain?clusters=5", HEART))
        _until(lambda: service.dispatcher.waiting == 1)
        leaving.close()
        _until(lambda: service.dispatcher.waiting == 0)
        free.set()
        assert held.recv(12) == b"HTTP/1.1 200"
        assert sound(url)
        assert 5 not in seen


def test_a_client_that_does_not_read_its_answer_is_closed(shapes, connect):
    with listening(shapes, timeout=2) as (url, service):
        deaf, where = connect(url, room=4096), urlsplit(url)
        for _ in range(30):  # answers that fill every buffer on the way
            deaf.sendall(b"GET /v1/samples/star HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        _until(lambda: not _open(where.port), 20)
        assert sound(url)


def _open(port: int) -> bool:
    """Tell whether a server has connections that are established."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "01" for line in lines)


def test_more_connections_than_the_server_holds_are_sent_away(shapes, connect):
    with listening(shapes, connections=8) as (url, _):
        idle = [connect(url) for _ in range(8)]
        time.sleep(0.2)
        assert sent(url, HEAD, 10) == 503
        for one in idle:
            one.close()
        _until(lambda: sound(url))


def test_one_address_cannot_take_every_connection(shapes, connect):
    with listening(shapes, per_client=2) as (url, _):
        many = [connect(url) for _ in range(12)]
        assert [closed(one, 1) for one in many[8:]] == [True] * 4
        many[0].sendall(HEAD)
        assert many[0].recv(12) == b"HTTP/1.1 200"


def test_a_length_that_is_wrong_harms_nobody(served):
    assert sent(served.url, request("/v1/explain", HEART, {"Content-Length": str(len(HEART) - 50_000)})) == 400  # cut short
    assert sent(served.url, request("/v1/explain", HEART, {"Content-Length": str(1 << 40)}), 10) == 413
    assert sent(served.url, request("/v1/explain", HEART, {"Content-Length": "-5"})) == 400
    assert sent(served.url, request("/v1/explain", HEART, {"Transfer-Encoding": "chunked"})) == 400
    assert sound(served.url)


# --- the server's end -----------------------------------------------------------------------------------------------------
def test_told_to_end_it_answers_what_it_accepted_and_exits_with_0():
    with serving("shapes", "--workers", "1") as server, ThreadPoolExecutor(12) as pool:
        answers = [pool.submit(sent, server.url, request("/v1/explain?clusters=64", HEART), 60) for _ in range(12)]
        _until(lambda: metric(server.url, "camrt_requests_under_way") == 12, 20)
        server.process.send_signal(signal.SIGTERM)
        assert Counter(one.result() for one in answers) == {200: 12}
        assert server.process.wait(30) == 0


def test_killed_under_a_supervisor_it_loses_only_what_was_under_way(tmp_path):
    from camrt.server.run import bound

    with bound("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
    command = f"while :; do '{sys.executable}' -m camrt serve shapes --port {port} & echo $! > {tmp_path}/pid; wait; done"
    supervisor = subprocess.Popen(["sh", "-c", command], cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        _until(lambda: _answers(url), 60)
        with ThreadPoolExecutor(1) as pool:
            under_load = pool.submit(load, url, [HEART], 4, seconds=2)
            time.sleep(1)
            subprocess.run(["kill", "-9", (tmp_path / "pid").read_text().strip()], check=True)
            statuses = under_load.result().statuses
        assert statuses[200] > 0
        assert set(statuses) <= {200, "broken"}
        _until(lambda: _answers(url), 60)
        assert set(load(url, [HEART], 4, requests=20).statuses) == {200}
    finally:
        os.killpg(supervisor.pid, signal.SIGKILL)
        supervisor.wait()


def _answers(url: str) -> bool:
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=30)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@pytest.mark.slow
def test_a_minute_of_load_leaves_memory_where_it_was():
    with serving("shapes") as server:
        soaked = soak(server.url, 60, clients=8)
        assert set(soaked.answers.statuses) == {200, 400, 422}, str(soaked)
        assert soaked.late <= soaked.early + 15, str(soaked)
