from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import camrt
from camrt.bundle import open_bundle, sha256_of
from camrt.engine import Batched, Engine
from camrt.errors import BundleError, DeviceMemoryError, ParameterError
from camrt.image import scaled, upsample
from camrt.manifest import MANIFEST
from camrt.methods import METHODS
from camrt.providers import is_out_of_memory
from tests import graphs

from .conftest import ROOT


@pytest.fixture
def engine(tiny_bundle) -> Engine:
    return Engine(open_bundle(tiny_bundle), ["cpu"])


def limited(folder, limit: int) -> Engine:
    return Engine(open_bundle(folder), ["cpu"], max_masked_batch=limit)


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).random((2, 3, 32, 32), np.float32)


def everything(logits: np.ndarray) -> np.ndarray:
    return logits


def parts(array: np.ndarray) -> tuple[Callable[[int, int], np.ndarray], int]:
    """Return an array (N, K, …) as a function of start and stop, and K."""
    return lambda start, stop: array[:, start:stop], array.shape[1]


def masked(engine: Engine, x: np.ndarray, maps: np.ndarray, keep=everything, **options) -> Batched:
    image, baseline = engine.put(x), engine.put(np.zeros_like(x))
    return engine.masked_logits(image, baseline, *parts(maps), keep, **options)


GRAPH_OF = {"maps": "score", "cotangent": "gradient", "features": "tail", "image": "head"}  # the first input that it has


class Spy:
    """Stands before an engine's runs: notes which graph ran on how many rows, and has room for so many of one graph's."""

    def __init__(self, engine: Engine, full: str = "", room: int = 0):
        self.run, self.full, self.room = engine._run, full, room
        self.rows: dict[str, list[int]] = {"head": [], "tail": [], "gradient": [], "score": []}

    def __call__(self, session, feeds):
        own = next(name for name in GRAPH_OF if name in feeds)
        graph, shape = GRAPH_OF[own], feeds[own].shape()
        rows = int(np.prod(shape[:2])) if graph == "score" else shape[0]
        self.rows[graph].append(rows)
        if graph == self.full and rows > self.room:
            raise DeviceMemoryError("cpu has no memory left")
        return self.run(session, feeds)


def test_features_and_logits_have_the_manifests_shapes(engine, x):
    features = engine.features(engine.put(x))
    assert features.numpy().shape == (2, 12, 8, 8)
    assert engine.logits(features).shape == (2, 5)
    assert np.array_equal(engine.logits(features), engine.logits(features.numpy()))


# --- masked images ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 7, 64])
def test_chunks_give_what_one_batch_gives(tiny_bundle, x, limit):
    maps = np.random.default_rng(1).random((2, 5, 8, 8), np.float32)
    whole = masked(limited(tiny_bundle, 64), x, maps)
    chunked = masked(limited(tiny_bundle, limit), x, maps)
    assert chunked.values.shape == (2, 5, 5)
    assert chunked.values == pytest.approx(whole.values, abs=1e-5)
    assert chunked.batch <= max(limit, 2)
    assert whole.batch == 10


def test_only_what_is_kept_of_every_chunk_comes_back(tiny_bundle, x):
    maps = np.random.default_rng(1).random((2, 5, 8, 8), np.float32)
    seen = []

    def one_class(logits: np.ndarray) -> np.ndarray:
        seen.append(logits.shape)
        return logits[..., 3]

    found = masked(limited(tiny_bundle, 4), x, maps, one_class)
    assert seen == [(2, 2, 5), (2, 2, 5), (2, 1, 5)]
    assert found.values == pytest.approx(masked(limited(tiny_bundle, 64), x, maps).values[..., 3], abs=1e-5)


def test_no_more_maps_are_made_at_once_than_share_a_call(tiny_bundle, x):
    engine, asked = limited(tiny_bundle, 4), []

    def maps(start: int, stop: int) -> np.ndarray:
        asked.append((start, stop))
        return np.ones((2, stop - start, 8, 8), np.float32)

    engine.masked_logits(engine.put(x), engine.put(x), maps, 5, everything)
    assert asked == [(0, 2), (2, 4), (4, 5)]


def test_maps_of_ones_show_the_image_and_of_zeros_the_baseline(engine, x):
    maps = np.stack([np.ones((2, 8, 8)), np.zeros((2, 8, 8))], axis=1).astype(np.float32)
    logits = masked(engine, x, maps, normalise=False).values
    assert logits[:, 0] == pytest.approx(engine.logits(engine.features(engine.put(x))), abs=1e-5)
    assert logits[:, 1] == pytest.approx(np.repeat(engine.black_logits()[None], 2, axis=0), abs=1e-5)


@pytest.mark.parametrize("normalise", [True, False])
def test_maps_as_large_as_the_image_give_what_small_ones_give_that_are_upsampled_in_the_graph(engine, x, normalise):
    small = np.random.default_rng(2).normal(0.3, 1, (2, 4, 8, 8)).astype(np.float32)
    large = upsample(small, (32, 32))
    found = masked(engine, x, large, normalise=normalise).values
    assert found == pytest.approx(masked(engine, x, small, normalise=normalise).values, abs=1e-4)
    on_host = masked(engine, x, scaled(large) if normalise else large, normalise=False).values
    assert found == pytest.approx(on_host, abs=1e-4)
    assert np.ptp(found, axis=1).min() > 1e-2  # the maps make a difference


@pytest.fixture(scope="module")
def wide_bundle(tmp_path_factory):
    """A bundle with 2048 feature maps of 2 x 2, from images of 8 x 8."""
    import exporters

    body = """
        c = Conv <strides = [4, 4], kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w)  r = Relu (c)
        p = GlobalAveragePool (r)  f = Flatten (p)  scores = Gemm (f, fc, b)
        """
    built = graphs.parse(body, image="N,3,8,8", w=(2048, 3, 3, 3), fc=(2048, 5), b=np.ones(5, np.float32))
    folder = tmp_path_factory.mktemp("wide")
    exporters.export(graphs.save(built, folder / "wide.onnx"), folder / "bundle", overrides={"scale": 1 / 255})
    return folder / "bundle"


@pytest.mark.parametrize("method", METHODS)
def test_no_method_sends_more_than_the_limit_in_one_call(wide_bundle, method, monkeypatch):
    explainer = camrt.load(wide_bundle, ["cpu"], max_masked_batch=50)
    spy = Spy(explainer.engine)
    monkeypatch.setattr(explainer.engine, "_run", spy)
    photos = list(np.random.default_rng(3).integers(0, 256, (3, 8, 8, 3), np.uint8))
    run = explainer.explain(photos, targets=[0, 1], method=method, **({"masks": 60} if method == "rise" else {}))[0].run
    assert max(n for rows in spy.rows.values() for n in rows) <= 50
    masked_images, edited, gradients = (3 * n for n in (run.passes - 1, run.tail_passes, run.backward_passes))
    assert sum(spy.rows["score"]) in (masked_images, masked_images - 3)  # Group-CAM looks at the blurred images too
    assert sum(spy.rows["tail"]) >= 3 + edited
    assert sum(spy.rows["gradient"]) == gradients
    assert run.masked_batch == max(spy.rows["score"], default=0)
    if method == "score-cam":
        assert spy.rows["score"] == [48] * 128


def test_the_black_baseline_is_computed_once(engine, monkeypatch):
    calls = []
    run = engine.features
    monkeypatch.setattr(engine, "features", lambda image: calls.append(1) or run(image))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: engine.black_logits(), range(16)))
    assert len(calls) == 1
    assert all(np.array_equal(found[0], other) for other in found)


# --- edited features ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("shape", [(1, 7, 12, 1, 1), (2, 7, 1, 8, 8), (2, 5, 12, 8, 8), (1, 1, 1, 1, 1)])
def test_edited_features_in_chunks_score_as_in_single_runs_of_the_tail(tiny_bundle, limit, shape):
    rng = np.random.default_rng(4)
    features, factors = rng.random((2, 12, 8, 8), np.float32), rng.normal(size=shape).astype(np.float32)
    found = limited(tiny_bundle, limit).edited_logits(features, *parts(factors), everything)
    edited = features[:, None] * factors
    expected = [[graphs.run(tiny_bundle / "tail.onnx", {"features": one[None]})[0][0] for one in row] for row in edited]
    assert found.values == pytest.approx(np.array(expected), abs=1e-5)
    assert found.batch <= max(limit, 2)


def test_only_what_is_kept_of_the_edited_features_logits_comes_back(tiny_bundle):
    rng = np.random.default_rng(4)
    features, factors = rng.random((2, 12, 8, 8), np.float32), rng.random((2, 5, 12, 1, 1), np.float32)
    kept = limited(tiny_bundle, 4).edited_logits(features, *parts(factors), lambda logits: logits[..., 1:3]).values
    assert np.array_equal(kept, limited(tiny_bundle, 4).edited_logits(features, *parts(factors), everything).values[..., 1:3])


@pytest.mark.parametrize("limit", [5, 64])
def test_the_weights_of_a_linear_tail_are_found_and_asked_for_once(tiny_bundle, monkeypatch, limit):
    weights = {t.name: numpy_helper.to_array(t) for t in graphs.classifier().graph.initializer}
    engine = limited(tiny_bundle, limit)
    spy = Spy(engine)
    monkeypatch.setattr(engine, "_run", spy)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: engine.linear_tail(), range(8)))
    for matrix, bias in found:
        assert matrix == pytest.approx(weights["w3"].T, abs=1e-5)
        assert bias == pytest.approx(weights["b3"], abs=1e-6)
    assert sum(spy.rows["tail"]) == 12 + 1
    assert max(spy.rows["tail"]) <= limit


# --- gradients ------------------------------------------------------------------------------------------------------------
@pytest.fixture
def features_and_cotangents() -> tuple[np.ndarray, np.ndarray]:
    """Three images' features in the built-in bundle, whose tail is not linear, and four cotangents each."""
    engine = Engine(open_bundle("shapes"), ["cpu"])
    rng = np.random.default_rng(5)
    x = rng.standard_normal((3, 3, 96, 96), np.float32)
    return engine.features(engine.put(x)).numpy(), rng.standard_normal((3, 4, 8), np.float32)


@pytest.mark.parametrize("limit", [1, 2, 5, 12, 64])
def test_gradients_in_chunks_equal_those_one_by_one(features_and_cotangents, monkeypatch, limit):
    features, cotangents = features_and_cotangents
    engine = limited("shapes", limit)
    spy = Spy(engine)
    monkeypatch.setattr(engine, "_run", spy)
    found = engine.gradients(features, cotangents)
    assert found.values.shape == (3, 4, 80, 12, 12)
    graph = ROOT / "models" / "shapes" / "gradient.onnx"
    for n, t in np.ndindex(3, 4):
        (alone,) = graphs.run(graph, {"features": features[n : n + 1], "cotangent": cotangents[n, t : t + 1]})
        np.testing.assert_allclose(found.values[n, t], alone[0], rtol=0, atol=1e-5 * float(np.abs(alone).max()))
    assert sum(spy.rows["gradient"]) == 12  # a row for every image and target
    assert max(spy.rows["gradient"]) == found.batch == min(limit, 12)


def test_the_gradient_of_a_mean_and_a_linear_layer_is_its_weights_over_the_cells(tiny_bundle, engine):
    weights = {t.name: numpy_helper.to_array(t) for t in graphs.classifier().graph.initializer}
    features = np.random.default_rng(6).random((1, 12, 8, 8), np.float32)
    found = engine.gradients(features, np.eye(5, dtype=np.float32)[None]).values[0]
    expected = np.broadcast_to(weights["w3"].T[..., None, None] / 64, (5, 12, 8, 8))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("graph", ["score", "gradient"])
def test_a_session_is_opened_on_first_use_and_once_for_all_threads(tiny_bundle, x, monkeypatch, graph):
    opened = []
    real = camrt.engine.open_session
    monkeypatch.setattr(camrt.engine, "open_session", lambda path, *rest: opened.append(path.name) or real(path, *rest))
    engine = Engine(open_bundle(tiny_bundle), ["cpu"])
    assert opened == ["head.onnx", "tail.onnx"]
    ones = np.ones((2, 2, 8, 8), np.float32)
    cotangents = np.ones((2, 2, 5), np.float32)
    features = engine.features(engine.put(x)).numpy()
    use = {"score": lambda: masked(engine, x, ones), "gradient": lambda: engine.gradients(features, cotangents)}[graph]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: use().values, range(16)))
    assert opened[2:] == [f"{graph}.onnx"]
    assert all(np.array_equal(found[0], other) for other in found)


def test_all_sessions_can_be_opened_before_they_are_used(tiny_bundle, monkeypatch):
    opened = []
    real = camrt.engine.open_session
    monkeypatch.setattr(camrt.engine, "open_session", lambda path, *rest: opened.append(path.name) or real(path, *rest))
    Engine(open_bundle(tiny_bundle), ["cpu"]).open_all()
    assert sorted(opened) == ["gradient.onnx", "head.onnx", "score.onnx", "tail.onnx"]


# --- full memory ----------------------------------------------------------------------------------------------------------
def test_a_full_device_halves_the_chunk_and_goes_on(engine, x, monkeypatch):
    maps = np.random.default_rng(1).random((2, 12, 8, 8), np.float32)
    whole = masked(engine, x, maps).values
    spy = Spy(engine, full="score", room=7)
    monkeypatch.setattr(engine, "_run", spy)
    result = masked(engine, x, maps)
    assert spy.rows["score"] == [24, 12, 6, 6, 6, 6]
    assert result.halved
    assert result.batch == 6
    assert result.values == pytest.approx(whole, abs=1e-5)
    spy.rows["score"].clear()
    assert not masked(engine, x, maps).halved
    assert spy.rows["score"] == [6, 6, 6, 6]


def test_a_full_device_halves_the_chunk_of_edited_features(engine, monkeypatch):
    rng = np.random.default_rng(7)
    features, factors = rng.random((2, 12, 8, 8), np.float32), rng.random((1, 12, 12, 1, 1), np.float32)
    whole = engine.edited_logits(features, *parts(factors), everything)
    spy = Spy(engine, full="tail", room=7)
    monkeypatch.setattr(engine, "_run", spy)
    result = engine.edited_logits(features, *parts(factors), everything)
    assert spy.rows["tail"] == [24, 12, 6, 6, 6, 6]
    assert (whole.halved, result.halved, result.batch) == (False, True, 6)
    assert result.values == pytest.approx(whole.values, abs=1e-5)


def test_a_full_device_halves_the_chunk_of_gradients(features_and_cotangents, monkeypatch):
    engine = limited("shapes", 64)
    whole = engine.gradients(*features_and_cotangents)
    spy = Spy(engine, full="gradient", room=4)
    monkeypatch.setattr(engine, "_run", spy)
    result = engine.gradients(*features_and_cotangents)
    assert spy.rows["gradient"] == [12, 6, 3, 3, 3, 3]
    assert (whole.halved, result.halved, result.batch) == (False, True, 3)
    np.testing.assert_allclose(result.values, whole.values, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("method", "parameters", "graph", "room", "masked_batch"), [
    ("cluster-cam", {"clusters": 6}, "score", 5, 3), ("hires-cam", {}, "gradient", 2, 0), ("ablation-cam", {}, "tail", 5, 0),
    ("group-cam", {"groups": 4}, "gradient", 2, 2),
])  # fmt: skip
def test_a_halved_chunk_is_noted_in_the_explanation(
    tiny_bundle, pixels, monkeypatch, method, parameters, graph, room, masked_batch
):
    explainer = camrt.load(tiny_bundle, providers=["cpu"])
    before = explainer.explain(pixels, top=5, method=method, **parameters)
    assert "chunk_halved" not in before.notes
    monkeypatch.setattr(explainer.engine, "_run", Spy(explainer.engine, graph, room))
    explanation = explainer.explain(pixels, top=5, method=method, **parameters)
    assert "chunk_halved" in explanation.notes
    assert explanation.run.masked_batch == masked_batch
    np.testing.assert_allclose(explanation.heatmap, before.heatmap, rtol=0, atol=1e-4)


@pytest.mark.parametrize("graph", ["score", "gradient", "tail"])
def test_no_room_for_a_single_image_is_an_error(engine, x, monkeypatch, graph):
    features = np.ones((2, 12, 8, 8), np.float32)
    monkeypatch.setattr(engine, "_run", Spy(engine, graph, room=0))
    with pytest.raises(DeviceMemoryError, match="no memory for [12] image.* of 32 x 32. Explain fewer images at once"):
        {
            "score": lambda: masked(engine, x, np.ones((2, 4, 8, 8), np.float32)),
            "gradient": lambda: engine.gradients(features, np.ones((2, 3, 5), np.float32)),
            "tail": lambda: engine.edited_logits(features, *parts(np.ones((1, 4, 1, 1, 1), np.float32)), everything),
        }[graph]()


@pytest.mark.parametrize(
    "text", ["Failed to allocate memory for requested buffer of size 1234", "CUDA error: out of memory", "std::bad_alloc"]
)
def test_onnx_runtimes_words_for_a_full_device_are_understood(text):
    assert is_out_of_memory(RuntimeError(f"Non-zero status code: {text}"))
    assert not is_out_of_memory(RuntimeError("Non-zero status code: shape mismatch"))


def test_other_failures_of_a_session_are_not_taken_for_a_full_device(engine, x):
    with pytest.raises(BundleError, match="failed on cpu: .*data type"):
        masked(engine, x, np.ones((2, 4, 5, 5), np.float32).astype(np.float64))


# --- what is opened late --------------------------------------------------------------------------------------------------
LATE = {"score": "cluster-cam", "gradient": "hires-cam"}  # the graphs that open on first use, and methods that use them


@pytest.mark.parametrize("method", LATE.values())
def test_a_bundle_replaced_since_it_was_loaded_is_noticed(tiny_bundle, tmp_path, pixels, method):
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    explainer = camrt.load(folder)
    values = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(values | {"name": "another"}))
    with pytest.raises(BundleError, match="was replaced since it was loaded. Load it again"):
        explainer.explain(pixels, method=method)


@pytest.mark.parametrize(("graph", "method"), LATE.items())
def test_a_graph_replaced_since_it_was_loaded_is_refused(tiny_bundle, tmp_path, pixels, graph, method):
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    explainer = camrt.load(folder)
    other = onnx.load(folder / f"{graph}.onnx", load_external_data=False)
    other.producer_version = "of somebody else"
    onnx.save(other, folder / f"{graph}.onnx")
    with pytest.raises(BundleError, match=rf"{graph}\.onnx is not the file that bundle\.json describes"):
        explainer.explain(pixels, method=method)


def test_weights_replaced_since_they_were_loaded_are_refused(tiny_bundle, tmp_path, pixels):
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    explainer = camrt.load(folder)
    weights = bytearray((folder / "weights.bin").read_bytes())
    weights[-1] ^= 1
    (folder / "weights.bin").write_bytes(weights)
    with pytest.raises(BundleError, match=r"weights\.bin is not the file"):
        explainer.explain(pixels, method="hires-cam")


def test_a_batch_of_none_is_refused(tiny_bundle):
    with pytest.raises(ParameterError, match="max_masked_batch must be a whole number from 1"):
        Engine(open_bundle(tiny_bundle), max_masked_batch=0)


def swap(tiny_bundle, folder, graph: str) -> None:
    """Put the tail in a graph's place, and its hash into bundle.json."""
    shutil.copytree(tiny_bundle, folder)
    shutil.copy(tiny_bundle / "tail.onnx", folder / f"{graph}.onnx")
    values = json.loads((folder / MANIFEST).read_text())
    values["files"][f"{graph}.onnx"] = sha256_of(folder / f"{graph}.onnx")
    (folder / MANIFEST).write_text(json.dumps(values))


def test_graphs_that_do_not_fit_bundle_json_are_refused_though_their_hashes_do(tiny_bundle, tmp_path):
    swap(tiny_bundle, tmp_path / "swapped", "head")
    with pytest.raises(BundleError, match=r"head\.onnx has the inputs \[features \(N, 12, 8, 8\)\], bundle\.json says"):
        camrt.load(tmp_path / "swapped")


@pytest.mark.parametrize(("graph", "method"), LATE.items())
def test_graphs_opened_late_that_do_not_fit_bundle_json_are_refused_too(tiny_bundle, tmp_path, pixels, graph, method):
    swap(tiny_bundle, tmp_path / "swapped", graph)
    explainer = camrt.load(tmp_path / "swapped")
    with pytest.raises(BundleError, match=rf"{graph}\.onnx has the inputs \[features \(N, 12, 8, 8\)\], bundle\.json says"):
        explainer.explain(pixels, method=method)
