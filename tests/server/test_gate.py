"""The gate and the bodies behind it: names, sites, tokens, numbers, sizes and times."""

from __future__ import annotations

import gzip
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("fastapi")

from .client import HEART, running
from .test_v1 import error, explain

TOKENS = ("first-token-of-16-and-more", "second-token-of-16-and-more")


@pytest.fixture(scope="module")
def client():
    with running(hosts=("127.0.0.1", "localhost")) as (client, _):
        yield client


@pytest.fixture(scope="module")
def guarded():
    with running(tokens=TOKENS) as (client, _):
        yield client


# --- who may come in ------------------------------------------------------------------------------------------------------
def test_a_server_on_loopback_answers_to_its_own_name_alone(client):
    assert client.get("/v1/models").status_code == 200
    assert client.get("/v1/models", headers={"Host": "localhost:8080"}).status_code == 200
    assert "--allow-host" in error(client.get("/v1/models", headers={"Host": "evil.example"}), 403)
    error(client.get("/", headers={"Host": "evil.example"}), 403)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://127.0.0.1:99"},
    ],
)
def test_pages_of_other_sites_are_refused(client, headers):
    error(explain(client, headers=headers), 403)


def test_the_servers_own_page_may_ask(client):
    assert explain(client, headers={"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}).status_code == 200


@pytest.mark.parametrize(
    "given",
    ["", "Bearer", "Bearer wrong-token-of-16-and-more", f"Basic {TOKENS[0]}", TOKENS[0], f"Bearer {TOKENS[0]}x", "Bearer ü"],
)
@pytest.mark.parametrize(
    ("verb", "path"), [("post", "/v1/explain"), ("get", "/v1/models"), ("get", "/metrics"), ("get", "/v1/samples/heart")]
)
def test_without_a_token_there_is_no_answer(guarded, given, verb, path):
    headers = {"Authorization": given.encode()} if given else {}
    answer = getattr(guarded, verb)(path, headers=headers)
    assert "Bearer" in error(answer, 401)
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("token", TOKENS)
def test_each_of_the_tokens_opens(guarded, token):
    assert explain(guarded, headers={"Authorization": f"Bearer {token}"}).status_code == 200
    assert explain(guarded, headers={"authorization": f"bearer  {token}"}).status_code == 200


def test_the_page_the_docs_and_health_are_open(guarded):
    for path in ("/", "/docs", "/openapi.json", "/static/app.js", "/v2/health/live", "/v2/health/ready"):
        assert guarded.get(path).status_code == 200, path


# --- how many -------------------------------------------------------------------------------------------------------------
@pytest.fixture
def slow(shapes, monkeypatch):
    """A way to make the model wait until it is let go."""
    import camrt.server.model as module

    free, real = threading.Event(), module.answer

    def wait(*arguments):
        free.wait(20)
        return real(*arguments)

    yield lambda: monkeypatch.setattr(module, "answer", wait), free
    free.set()


def test_more_than_the_server_takes_are_503_with_a_time_and_the_others_are_answered(shapes, slow):
    hold, free = slow
    with running(shapes, requests=4) as (client, service), ThreadPoolExecutor(4) as pool:
        hold()
        held = [pool.submit(explain, client) for _ in range(4)]
        _until(lambda: service.dispatcher.waiting + len(service.dispatcher._began) and _under_way(service) == 4)
        refused = explain(client)
        assert "Try again" in error(refused, 503)
        assert int(refused.headers["Retry-After"]) >= 1
        assert client.get("/v2/health/live").status_code == 200, "health is answered at any time"
        free.set()
        assert [one.result().status_code for one in held] == [200] * 4
        assert explain(client).status_code == 200


def test_one_client_cannot_take_every_place(shapes, slow):
    hold, free = slow
    with running(shapes, tokens=TOKENS, per_client=2) as (client, service), ThreadPoolExecutor(4) as pool:
        hold()
        mine, others = ({"Authorization": f"Bearer {token}"} for token in TOKENS)
        held = [pool.submit(explain, client, headers=mine) for _ in range(2)]
        _until(lambda: _under_way(service) == 2)
        refused = explain(client, headers=mine)
        assert "At most 2" in error(refused, 429)
        assert refused.headers["Retry-After"] == "1"
        other = pool.submit(explain, client, headers=others)
        free.set()
        assert other.result().status_code == 200
        assert [one.result().status_code for one in held] == [200] * 2


def test_uploads_beyond_the_budget_are_503(shapes, slow):
    hold, free = slow
    with running(shapes, max_body=200_000, max_uploads=200_000) as (client, service), ThreadPoolExecutor(1) as pool:
        hold()
        held = pool.submit(explain, client)
        _until(lambda: service.uploads.used > 0)
        assert "uploads" in error(explain(client), 503)
        free.set()
        assert held.result().status_code == 200
        assert service.uploads.used == service.decoded.used == 0


def test_photos_wait_for_their_turn_to_be_decoded(shapes):
    with running(shapes, max_pixels=384 * 384, max_decoded=3 * 384 * 384) as (client, service), ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: explain(client).status_code, range(6)))
        assert answers == [200] * 6
        assert service.decoded.used == 0


# --- how long -------------------------------------------------------------------------------------------------------------
def test_what_takes_longer_than_a_request_may_is_504_and_is_given_up(shapes, slow):
    hold, free = slow
    with running(shapes, timeout=0.3) as (client, service):
        hold()
        assert "0.3 s" in error(explain(client), 504)
        _until(lambda: _under_way(service) == 0)
        free.set()
        _until(lambda: not service.dispatcher._began)
        assert service.ready, "giving work up is no failure of the model"


def test_work_that_waits_and_that_nobody_wants_is_not_run(shapes, slow, monkeypatch):
    import camrt.server.model as module

    hold, free = slow
    with running(shapes, timeout=2) as (client, service), ThreadPoolExecutor(2) as pool:
        hold()
        first = pool.submit(explain, client, clusters=4)
        _until(lambda: service.dispatcher._began)
        second = pool.submit(explain, client, clusters=5)
        assert first.result().status_code == second.result().status_code == 504
        seen, waiting = [], module.answer
        monkeypatch.setattr(module, "answer", lambda e, q, i, t: seen.append(q[0].settings["clusters"]) or waiting(e, q, i, t))
        free.set()
        assert explain(client, clusters=6).status_code == 200
        assert seen == [6]


# --- how much -------------------------------------------------------------------------------------------------------------
def test_a_body_beyond_the_limit_is_413_whatever_its_length_says(shapes):
    with running(shapes, max_body=1000) as (client, service):
        assert "1,000 bytes" in error(explain(client), 413)
        error(client.post("/v1/explain", content=iter([HEART[:600], HEART[600:]])), 413)
        assert service.uploads.used == 0


def test_a_compressed_body_is_unpacked_within_the_limit(shapes):
    with running(shapes, max_body=200_000) as (client, _):
        for encoding, packed in (("gzip", gzip.compress(HEART)), ("deflate", zlib.compress(HEART))):
            assert explain(client, packed, {"Content-Encoding": encoding}).status_code == 200
        bomb = gzip.compress(bytes(50_000_000))
        assert len(bomb) < 200_000
        error(explain(client, bomb, {"Content-Encoding": "gzip"}), 413)
        error(explain(client, gzip.compress(HEART)[:-20], {"Content-Encoding": "gzip"}), 400)
        error(explain(client, HEART, {"Content-Encoding": "gzip"}), 400)
        error(explain(client, HEART, {"Content-Encoding": "br"}), 415)


@pytest.mark.parametrize("length", ["-1", "many", "1e3", "9" * 30])
def test_a_length_that_is_none_is_400(client, length):
    assert explain(client, headers={"Content-Length": length}).status_code in (400, 413)


# --- what is told ---------------------------------------------------------------------------------------------------------
def test_every_answer_bears_the_requests_id_and_the_browsers_orders(client):
    answer = client.get("/v1/models", headers={"X-Request-ID": "mine-1"})
    assert answer.headers["X-Request-ID"] == "mine-1"
    invented = client.get("/nothing", headers={"X-Request-ID": "not one\x7f of ours"})
    assert len(invented.headers["X-Request-ID"]) == 16
    for one in (answer, invented, client.get("/")):
        assert "default-src 'none'" in one.headers["Content-Security-Policy"]
        assert one.headers["X-Content-Type-Options"] == "nosniff"


def test_metrics_count_what_was_done(client):
    explain(client, target=["heart", "star"])
    text = client.get("/metrics").text
    for line in (
        'camrt_images_total{method="cluster-cam",model="shapes",outcome="ok"}', "camrt_ready 1.0", "camrt_batch_images_bucket",
        'camrt_stage_seconds_bucket{le="0.001",model="shapes",stage="decode"}', "process_resident_memory_bytes",
        'camrt_requests_total{route="/v1/explain",status="200"}', "camrt_requests_under_way 0.0", "camrt_queue_images 0.0",
    ):  # fmt: skip
        assert line in text, line


def test_logs_are_json_and_name_the_request(client, caplog):
    import json

    from camrt.server.journal import JsonLines

    with caplog.at_level("INFO", "camrt.server"):
        explain(client, headers={"X-Request-ID": "mine-2"})
    (record,) = [r for r in caplog.records if r.getMessage() == "request"]
    told = json.loads(JsonLines().format(record))
    assert (told["route"], told["status"], told["model"], told["explained_by"]) == ("/v1/explain", 200, "shapes", "cluster-cam")
    assert told["outcomes"] == ["ok"]


# --- an engine that fails -------------------------------------------------------------------------------------------------
def test_a_failing_engine_is_not_ready_and_is_ready_again_once_it_runs(shapes, monkeypatch):
    import camrt
    import camrt.server.model as module
    import camrt.server.models as models

    monkeypatch.setattr(models, "PROBE_EVERY", 0.05)
    real = module.answer

    def fail(*_):
        raise camrt.BundleError("the device is gone")

    with running(shapes) as (client, service):
        assert client.get("/v2/health/ready").status_code == 200
        monkeypatch.setattr(module, "answer", fail)
        error(explain(client), 503)
        assert client.get("/v2/health/ready").status_code == 503
        assert client.get("/v2/health/live").status_code == 200
        monkeypatch.setattr(module, "answer", real)
        _until(lambda: service.ready)
        assert explain(client).status_code == 200


def test_an_engine_that_is_stuck_is_not_ready(shapes, slow):
    hold, free = slow
    with running(shapes, timeout=5) as (client, service), ThreadPoolExecutor(1) as pool:
        service.dispatcher._stalled = 0.1
        hold()
        held = pool.submit(explain, client)
        _until(lambda: not service.ready)
        free.set()
        assert held.result().status_code == 200
        _until(lambda: service.ready)


def _under_way(service) -> float:
    return service.counters.under_way._value.get()


def _until(condition, patience: float = 10.0) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.005)
