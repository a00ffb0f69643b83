"""Send a server what no client would, and see that every answer is a proper one.

    python -m tests.server.fuzz [--requests 10000] [--seed 0]

Requests are valid ones with bytes changed, cut, doubled or put in, of both faces; some are no HTTP at all, some come with a
wrong length.  A request passes if it is answered with a status below 500 (or 503, 504), or, where no HTTP can be read from it, if
the connection is closed; now and then a good request must be answered 200.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import select
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import numpy as np

from tests.conftest import SAMPLES
from tests.server.conftest import serving

PATIENCE = 30.0  # seconds for an answer
WAITING = 0.5  # seconds after which a server that is still waiting for more is told that nothing comes
AT_ONCE = 8  # requests
PROPER = {503, 504}  # beside all below 500
PHOTO = (SAMPLES / "heart.png").read_bytes()
SMALL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63606060000000040001f61738550000000049454e44ae426082"
)  # a PNG of one pixel


def request(path: str, body: bytes, headers: dict[str, str] | None = None, verb: str = "POST") -> bytes:
    """Return a request as it goes over the wire."""
    told = {"Host": "127.0.0.1", "Connection": "close", "Content-Length": str(len(body))} | (headers or {})
    head = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return f"{verb} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def binary() -> bytes:
    """Return an inference request with a binary tensor."""
    pixels = np.arange(32 * 32 * 3, dtype=np.uint8).tobytes()
    told = {"name": "pixels", "shape": [1, 32, 32, 3], "datatype": "UINT8", "parameters": {"binary_data_size": len(pixels)}}
    parts = {
        "id": "x",
        "parameters": {"top": 2, "clusters": 4},
        "inputs": [told],
        "outputs": [{"name": "heatmap", "parameters": {"binary_data": True}}],
    }
    head = json.dumps(parts).encode()
    return request("/v2/models/shapes/infer", head + pixels, {"Inference-Header-Content-Length": str(len(head))})


def photos() -> bytes:
    """Return an inference request with encoded photos."""
    data = len(SMALL).to_bytes(4, "little") + SMALL
    told = {"name": "photo", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [told], "outputs": [{"name": "labels"}]}).encode()
    return request("/v2/models/shapes/infer", head + data, {"Inference-Header-Content-Length": str(len(head))})


def numbers() -> bytes:
    """Return an inference request in JSON."""
    told = {"name": "pixels", "shape": [1, 2, 2, 3], "datatype": "UINT8", "data": list(range(12))}
    return request("/v2/models/shapes/infer", json.dumps({"inputs": [told]}).encode(), {"Content-Type": "application/json"})


def form() -> bytes:
    """Return a form with a photo."""
    body = b'--b\r\nContent-Disposition: form-data; name="photo"; filename="x.png"\r\n\r\n' + SMALL + b"\r\n--b--\r\n"
    return request("/v1/explain?top=2", body, {"Content-Type": "multipart/form-data; boundary=b"})


SOUND = (
    binary, photos, numbers, form,
    lambda: request("/v1/explain?clusters=4&image=overlay&longest=64", SMALL),
    lambda: request("/v1/explain?param=merge=evidence&target=heart&versus=star", PHOTO),
    lambda: request("/v2/repository/index", b"{}"),
    lambda: request("/v1/samples/heart", b"", verb="GET"),
)  # fmt: skip
ODD = (
    b"\x00",
    b"\r\n",
    b"\xff" * 4,
    b"%00",
    b"../",
    b"NaN",
    b"1e999",
    b"-1",
    b"[" * 200,
    b"{}",
    b"null",
    b'"',
    b"9" * 40,
    "é".encode(),
    b"\x7f\x80",
)


def broken(chance: random.Random) -> bytes:
    """Return a request that is not as it should be."""
    data = bytearray(chance.choice(SOUND)())
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(6):
            case 0:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                data[at : at + chance.randrange(1, 64)] = b""
            case 2:
                data[at:at] = chance.choice(ODD)
            case 3:
                data[at:at] = data[at : at + chance.randrange(1, 64)]
            case 4:
                data[at : at + 4] = chance.randrange(1 << 32).to_bytes(4, "little")
            case _:
                other = chance.choice(SOUND)()
                data[at:] = other[chance.randrange(len(other)) :]
    return bytes(data)


def sent(url: str, data: bytes, waiting: float = WAITING) -> int | str:
    """Return the status of the answer to some bytes; "closed" where there is none."""
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port), PATIENCE) as connection:
        with contextlib.suppress(OSError):  # it was closed before all was sent; the answer may be there
            connection.sendall(data)
        try:
            if not select.select([connection], [], [], waiting)[0]:
                connection.shutdown(socket.SHUT_WR)
            head = connection.recv(12)
        except TimeoutError:
            return "no answer"
        except OSError:
            return "closed"
    if not head:
        return "closed"
    return int(head[9:12]) if head.startswith(b"HTTP/1.1 ") and head[9:12].isdigit() else "no HTTP"


def fuzz(url: str, requests: int, seed: int) -> Counter[int | str]:
    """Send so many broken requests, and a sound one after every hundred; return how often there was which answer.

    Raises
    ------
    AssertionError
        An answer is not proper; the request is in the message.
    """

    def one(number: int) -> int | str:
        data = broken(random.Random(f"{seed} {number}"))
        status = sent(url, data)
        proper = status == "closed" or (isinstance(status, int) and (200 <= status < 500 or status in PROPER))
        assert proper, f"request {number} of seed {seed} was answered {status}: {data[:2000]!r}"
        if number % 100 == 99:
            sound = SOUND[number // 100 % len(SOUND)]()
            assert (got := sent(url, sound, PATIENCE)) == 200, f"a sound request was answered {got}: {sound[:500]!r}"
        return status

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return Counter(pool.map(one, range(requests)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with serving("shapes", "--per-client", "0") as server:
        print(dict(fuzz(server.url, options.requests, options.seed)))


if __name__ == "__main__":
    main()
