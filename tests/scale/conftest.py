"""Photos in bulk, datasets made of them, and a decoder that dies of marked photos."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from camrt.scale.asked import ask
from camrt.scale.batch import Batch, Watch
from camrt.scale.local import local
from camrt.scale.manifest import Manifest

# Behind the end of a PNG, where decoders do not look:
POISON, SLOW, ENDLESS = b"this photo kills", b"this photo has time", b"this photo is endless"
CUSTOM = f"""
import os, signal, time
import cv2
decode = cv2.imdecode
def imdecode(data, *rest):
    if bytes(data[-{len(POISON)}:]) == {POISON!r}:
        os.kill(os.getpid(), signal.SIGSEGV)
    if bytes(data[-{len(SLOW)}:]) == {SLOW!r}:
        time.sleep(0.15)
    if bytes(data[-{len(ENDLESS)}:]) == {ENDLESS!r}:
        time.sleep(1e6)
    return decode(data, *rest)
cv2.imdecode = imdecode
"""  # as sitecustomize.py, which Python imports when it starts


class Kept(Watch):
    """Keeps which shards were made."""

    def __init__(self):
        self.shards, self.lost = [], None

    def begin(self, manifest, listing, lost):
        self.lost = lost

    def shard(self, shard):
        self.shards.append(shard.part)


def make_photos(folder: Path, count: int) -> Path:
    """Write photos of different content, 00.png and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        random = np.random.default_rng(i)
        pixels = cv2.resize(random.integers(0, 256, (5, 5, 3), np.uint8), (48, 40), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{i:02d}.png"), pixels)
    return folder


def mark(photo: Path, how: bytes) -> None:
    """Make a photo kill who decodes it, or take its time, where `decoder` is in force."""
    photo.write_bytes(photo.read_bytes() + how)


def rows_of(output: Path | str) -> pa.Table:
    """Return what a dataset holds but for what is timed."""
    return pq.read_table(f"{output}/data").drop_columns(["timings"])


def run(asked: Batch, engine=local) -> Manifest:
    return asked.run(engine, Kept())


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    return make_photos(tmp_path_factory.mktemp("bulk") / "photos", 22)


@pytest.fixture(scope="session")
def undisturbed(tiny_bundle, photos, tmp_path_factory) -> pa.Table:
    """The rows of `photos` in shards of 5, from a run that nothing disturbed."""
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    run(ask(tiny_bundle, [str(photos)], str(output), shard_size=5))
    return rows_of(output)


@pytest.fixture(scope="session")
def decoder_path(tmp_path_factory) -> Path:
    """A folder that, on Python's path, brings a decoder which dies of marked photos, as a faulty one would."""
    folder = tmp_path_factory.mktemp("decoder")
    (folder / "sitecustomize.py").write_text(CUSTOM)
    return folder


@pytest.fixture
def decoder(decoder_path, monkeypatch) -> None:
    """Have every worker, and every command, decode so."""
    monkeypatch.syspath_prepend(decoder_path)
    monkeypatch.setenv("PYTHONPATH", str(decoder_path))


@pytest.fixture
def slow_photos(photos, tmp_path) -> Path:
    """A copy of `photos` that take their time."""
    mine = Path(shutil.copytree(photos, tmp_path / "slow"))
    for photo in mine.iterdir():
        mark(photo, SLOW)
    return mine
