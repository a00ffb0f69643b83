from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import camrt
from camrt.bundle import open_bundle, sha256_of
from camrt.engine import Engine
from camrt.errors import BundleError, DeviceMemoryError, ParameterError
from camrt.manifest import MANIFEST
from camrt.providers import is_out_of_memory


@pytest.fixture
def engine(tiny_bundle) -> Engine:
    return Engine(open_bundle(tiny_bundle), ["cpu"])


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).random((2, 3, 32, 32), np.float32)


def masked(engine: Engine, x: np.ndarray, maps: np.ndarray, **options) -> camrt.engine.Masked:
    return engine.masked_logits(engine.put(x), engine.put(np.zeros_like(x)), maps, **options)


def test_features_and_logits_have_the_manifests_shapes(engine, x):
    features = engine.features(engine.put(x))
    assert features.numpy().shape == (2, 12, 8, 8)
    assert engine.logits(features).shape == (2, 5)
    assert np.array_equal(engine.logits(features), engine.logits(features.numpy()))


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 7, 64])
def test_chunks_give_what_one_batch_gives(tiny_bundle, x, limit):
    maps = np.random.default_rng(1).random((2, 5, 8, 8), np.float32)
    whole = masked(Engine(open_bundle(tiny_bundle), ["cpu"]), x, maps)
    chunked = masked(Engine(open_bundle(tiny_bundle), ["cpu"], max_masked_batch=limit), x, maps)
    assert chunked.logits == pytest.approx(whole.logits, abs=1e-5)
    assert chunked.batch <= max(limit, 2)
    assert whole.batch == 10


def test_maps_of_ones_show_the_image_and_of_zeros_the_baseline(engine, x):
    maps = np.stack([np.ones((2, 8, 8)), np.zeros((2, 8, 8))], axis=1).astype(np.float32)
    logits = masked(engine, x, maps, normalise=False).logits
    assert logits[:, 0] == pytest.approx(engine.logits(engine.features(engine.put(x))), abs=1e-5)
    assert logits[:, 1] == pytest.approx(np.repeat(engine.black_logits()[None], 2, axis=0), abs=1e-5)


def test_the_black_baseline_is_computed_once(engine, monkeypatch):
    calls = []
    run = engine.features
    monkeypatch.setattr(engine, "features", lambda image: calls.append(1) or run(image))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: engine.black_logits(), range(16)))
    assert len(calls) == 1
    assert all(np.array_equal(found[0], other) for other in found)


class Full:
    """A session whose memory holds so many masked images."""

    def __init__(self, engine: Engine, room: int):
        self.run, self.room, self.tried = engine._run, room, []

    def __call__(self, session, feeds):
        if "maps" in feeds:
            images = int(np.prod(feeds["maps"].shape()[:2]))
            self.tried.append(images)
            if images > self.room:
                raise DeviceMemoryError("cpu has no memory left")
        return self.run(session, feeds)


def test_a_full_device_halves_the_chunk_and_goes_on(engine, x, monkeypatch):
    maps = np.random.default_rng(1).random((2, 12, 8, 8), np.float32)
    whole = masked(engine, x, maps).logits
    full = Full(engine, room=7)
    monkeypatch.setattr(engine, "_run", full)
    result = masked(engine, x, maps)
    assert full.tried == [24, 12, 6, 6, 6, 6]
    assert result.halved
    assert result.logits == pytest.approx(whole, abs=1e-5)
    full.tried.clear()
    assert not masked(engine, x, maps).halved
    assert full.tried == [6, 6, 6, 6]


def test_a_halved_chunk_is_noted_in_the_explanation(tiny_bundle, pixels, monkeypatch):
    explainer = camrt.load(tiny_bundle, providers=["cpu"])
    before = explainer.explain(pixels, clusters=6).heatmap
    monkeypatch.setattr(explainer.engine, "_run", Full(explainer.engine, room=5))
    explanation = explainer.explain(pixels, clusters=6)
    assert "chunk_halved" in explanation.notes
    assert explanation.run.masked_batch == 3
    assert explanation.heatmap == pytest.approx(before, abs=1e-4)


def test_no_room_for_a_single_masked_image_is_an_error(engine, x, monkeypatch):
    monkeypatch.setattr(engine, "_run", Full(engine, room=0))
    with pytest.raises(DeviceMemoryError, match="no memory for 2 masked image"):
        masked(engine, x, np.ones((2, 4, 8, 8), np.float32))


@pytest.mark.parametrize(
    "text", ["Failed to allocate memory for requested buffer of size 1234", "CUDA error: out of memory", "std::bad_alloc"]
)
def test_onnx_runtimes_words_for_a_full_device_are_understood(text):
    assert is_out_of_memory(RuntimeError(f"Non-zero status code: {text}"))
    assert not is_out_of_memory(RuntimeError("Non-zero status code: shape mismatch"))


def test_other_failures_of_a_session_are_not_taken_for_a_full_device(engine, x):
    with pytest.raises(BundleError, match="failed on cpu: .*data type"):
        masked(engine, x, np.ones((2, 4, 5, 5), np.float32).astype(np.float64))


def test_a_bundle_replaced_since_it_was_loaded_is_noticed(tiny_bundle, tmp_path, pixels):
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    explainer = camrt.load(folder)
    values = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(values | {"name": "another"}))
    with pytest.raises(BundleError, match="was replaced since it was loaded. Load it again"):
        explainer.explain(pixels)


def test_a_batch_of_none_is_refused(tiny_bundle):
    with pytest.raises(ParameterError, match="max_masked_batch must be a whole number from 1"):
        Engine(open_bundle(tiny_bundle), max_masked_batch=0)


def test_graphs_that_do_not_fit_bundle_json_are_refused_though_their_hashes_do(tiny_bundle, tmp_path):
    folder = shutil.copytree(tiny_bundle, tmp_path / "swapped")
    shutil.copy(tiny_bundle / "tail.onnx", folder / "head.onnx")
    values = json.loads((folder / MANIFEST).read_text())
    values["files"]["head.onnx"] = sha256_of(folder / "head.onnx")
    (folder / MANIFEST).write_text(json.dumps(values))
    with pytest.raises(BundleError, match=r"head\.onnx has the inputs \[features \(N, 12, 8, 8\)\], bundle\.json says"):
        camrt.load(folder)
