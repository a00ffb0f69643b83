from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnx import numpy_helper

import camrt
import exporters
from camrt.bundle import open_bundle
from camrt.engine import MAX_EDITED_BATCH, MAX_MASKED_BATCH, Batched, Engine
from camrt.errors import BundleError, DeviceMemoryError, ParameterError
from camrt.image import scaled, upsample
from camrt.methods import METHODS
from tests import graphs

from .conftest import ROOT


@pytest.fixture
def engine(tiny_bundle) -> Engine:
    return Engine(open_bundle(tiny_bundle), ["cpu"], max_masked_batch=64)


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


class Spy:
    """Stands before an engine's runs: notes which graph ran on how many rows, and has room for so many of one graph's."""

    def __init__(self, engine: Engine, full: str = "", room: int = 0):
        self.run, self.full, self.room = engine.sessions.run, full, room
        self.rows: dict[str, list[int]] = {"whole": [], "tail": [], "gradient": [], "score": []}

    def __call__(self, graph, feeds, *outputs):
        shape = feeds["maps"].shape()[:2] if graph == "score" else next(iter(feeds.values())).shape()[:1]
        rows = int(np.prod(shape))
        kind = "whole" if "features" in outputs else graph
        self.rows[kind].append(rows)
        if kind == self.full and rows > self.room:
            raise DeviceMemoryError("cpu has no memory left")
        return self.run(graph, feeds, *outputs)


def test_features_and_logits_have_the_manifests_shapes(engine, x):
    features = engine.features(engine.put(x))
    assert features.numpy().shape == (2, 12, 8, 8)
    assert engine.logits(features).shape == (2, 5)
    assert np.array_equal(engine.logits(features), engine.logits(features.numpy()))


def test_the_whole_model_gives_what_head_and_tail_give_one_after_the_other(engine, x):
    features, logits = engine.whole(engine.put(x))
    in_steps = engine.features(engine.put(x))
    np.testing.assert_allclose(features.numpy(), in_steps.numpy(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(logits, engine.logits(in_steps), rtol=0, atol=1e-5)
    assert np.array_equal(logits, engine.whole(engine.put(x))[1])


def test_an_image_that_is_not_finite_gives_features_that_are_not(engine, x):
    x[0, 0, 5, 5] = np.nan
    features, logits = engine.whole(engine.put(x))
    assert np.isnan(features.numpy()[0]).any()
    assert np.isnan(logits[0]).any()
    assert np.isfinite(logits[1]).all()


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
    assert seen == [(2, 2, 5), (2, 2, 5), (2, 1, 5)]  # 5 maps in three calls, as equal as can be
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
    monkeypatch.setattr(explainer.engine.sessions, "run", spy)
    photos = list(np.random.default_rng(3).integers(0, 256, (3, 8, 8, 3), np.uint8))
    run = explainer.explain(photos, targets=[0, 1], method=method, **({"masks": 60} if method == "rise" else {}))[0].run
    assert max(n for rows in spy.rows.values() for n in rows) <= 50
    passes, edited, gradients = (3 * n for n in (run.passes, run.tail_passes, run.backward_passes))
    black = spy.rows["whole"].count(1)
    assert sum(spy.rows["score"]) + sum(spy.rows["whole"]) - black == passes
    assert sum(spy.rows["tail"]) >= edited
    assert sum(spy.rows["gradient"]) == gradients
    assert run.masked_batch == max(spy.rows["score"], default=0)
    if method == "score-cam":
        assert len(spy.rows["score"]) == 3 * 41  # an image at a time, its 2048 copies in calls of equal size
        assert set(spy.rows["score"]) == {50, 49}


def test_calls_are_of_equal_size_so_that_memory_is_reused(tiny_bundle, x):
    engine = limited(tiny_bundle, 16)
    spy = Spy(engine)
    engine.sessions.run = spy
    masked(engine, x[:1], np.ones((1, 33, 8, 8), np.float32))
    masked(engine, x, np.ones((2, 10, 8, 8), np.float32))
    assert spy.rows["score"] == [11, 11, 11, 10, 10]


def test_a_batch_is_by_default_as_large_as_serves_the_device(tiny_bundle):
    assert Engine(open_bundle(tiny_bundle), ["cpu"]).max_masked_batch == MAX_MASKED_BATCH["cpu"] == 5


def test_small_edited_features_share_larger_calls_unless_a_limit_is_given(tiny_bundle, monkeypatch):
    assert Engine(open_bundle(tiny_bundle), ["cpu"]).max_edited_batch == MAX_EDITED_BATCH == 64
    assert limited(tiny_bundle, 3).max_edited_batch == 3
    monkeypatch.setattr("camrt.engine.EDITED_BYTES", 20 * 4 * 12 * 8 * 8)
    assert Engine(open_bundle(tiny_bundle), ["cpu"]).max_edited_batch == 20
    monkeypatch.setattr("camrt.engine.EDITED_BYTES", 1)
    assert Engine(open_bundle(tiny_bundle), ["cpu"]).max_edited_batch == 5


def test_each_map_may_be_upsampled_in_its_own_way(engine, x):
    maps = np.random.default_rng(1).random((2, 5, 4, 6), np.float32)
    rows, columns = (
        np.random.default_rng(2).random((5, 32, 4), np.float32),
        np.random.default_rng(3).random((5, 6, 32), np.float32),
    )
    rows, columns = rows / 4, columns / 6
    found = masked(engine, x, maps, normalise=False, upsampling=lambda a, b: (rows[a:b], columns[a:b])).values
    assert found == pytest.approx(masked(engine, x, rows @ maps @ columns, normalise=False).values, abs=1e-5)


def test_the_black_baseline_is_computed_once(engine, monkeypatch):
    calls = []
    run = engine.whole
    monkeypatch.setattr(engine, "whole", lambda image: calls.append(1) or run(image))
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
    found = limited(tiny_bundle, limit).edited_logits(len(features), *parts(features[:, None] * factors), everything)
    edited = features[:, None] * factors
    expected = [[graphs.run(tiny_bundle / "tail.onnx", {"features": one[None]})[0][0] for one in row] for row in edited]
    assert found.values == pytest.approx(np.array(expected), abs=1e-5)
    assert found.batch <= max(limit, 2)


def test_only_what_is_kept_of_the_edited_features_logits_comes_back(tiny_bundle):
    rng = np.random.default_rng(4)
    features, factors = rng.random((2, 12, 8, 8), np.float32), rng.random((2, 5, 12, 1, 1), np.float32)
    kept = (
        limited(tiny_bundle, 4)
        .edited_logits(len(features), *parts(features[:, None] * factors), lambda logits: logits[..., 1:3])
        .values
    )
    assert np.array_equal(
        kept,
        limited(tiny_bundle, 4).edited_logits(len(features), *parts(features[:, None] * factors), everything).values[..., 1:3],
    )


@pytest.mark.parametrize("limit", [5, 64])
def test_the_weights_of_a_linear_tail_are_found_and_asked_for_once(tiny_bundle, monkeypatch, limit):
    weights = {t.name: numpy_helper.to_array(t) for t in graphs.classifier().graph.initializer}
    engine = limited(tiny_bundle, limit)
    spy = Spy(engine)
    monkeypatch.setattr(engine.sessions, "run", spy)
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
    monkeypatch.setattr(engine.sessions, "run", spy)
    found = engine.gradients(features, cotangents)
    assert found.values.shape == (3, 4, 80, 12, 12)
    graph = ROOT / "models" / "shapes" / "gradient.onnx"
    for n, t in np.ndindex(3, 4):
        (alone,) = graphs.run(graph, {"features": features[n : n + 1], "cotangent": cotangents[n, t : t + 1]})
        np.testing.assert_allclose(found.values[n, t], alone[0], rtol=0, atol=1e-5 * float(np.abs(alone).max()))
    assert sum(spy.rows["gradient"]) == 12  # a row for every image and target
    assert max(spy.rows["gradient"]) == found.batch == {1: 1, 2: 2, 5: 4, 12: 12, 64: 12}[limit]  # in calls of equal size


def test_the_gradient_of_a_mean_and_a_linear_layer_is_its_weights_over_the_cells(tiny_bundle, engine):
    weights = {t.name: numpy_helper.to_array(t) for t in graphs.classifier().graph.initializer}
    features = np.random.default_rng(6).random((1, 12, 8, 8), np.float32)
    found = engine.gradients(features, np.eye(5, dtype=np.float32)[None]).values[0]
    expected = np.broadcast_to(weights["w3"].T[..., None, None] / 64, (5, 12, 8, 8))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


# --- full memory ----------------------------------------------------------------------------------------------------------
def test_a_full_device_halves_the_chunk_and_goes_on(engine, x, monkeypatch):
    maps = np.random.default_rng(1).random((2, 12, 8, 8), np.float32)
    whole = masked(engine, x, maps).values
    spy = Spy(engine, full="score", room=7)
    monkeypatch.setattr(engine.sessions, "run", spy)
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
    whole = engine.edited_logits(len(features), *parts(features[:, None] * factors), everything)
    spy = Spy(engine, full="tail", room=7)
    monkeypatch.setattr(engine.sessions, "run", spy)
    result = engine.edited_logits(len(features), *parts(features[:, None] * factors), everything)
    assert spy.rows["tail"] == [24, 12, 6, 6, 6, 6]
    assert (whole.halved, result.halved, result.batch) == (False, True, 6)
    assert result.values == pytest.approx(whole.values, abs=1e-5)


def test_edited_features_of_a_list_go_on_where_the_device_has_room_for_one(engine, monkeypatch):
    rng = np.random.default_rng(7)
    features, factors = rng.random((5, 12, 8, 8), np.float32), rng.random((1, 3, 12, 1, 1), np.float32)
    whole = engine.edited_logits(len(features), *parts(features[:, None] * factors), everything)
    monkeypatch.setattr(engine.sessions, "run", Spy(engine, full="tail", room=1))
    result = engine.edited_logits(len(features), *parts(features[:, None] * factors), everything)
    assert (result.halved, result.batch, engine.max_edited_batch) == (True, 1, 1)
    assert result.values == pytest.approx(whole.values, abs=1e-5)


def test_a_full_device_halves_the_chunk_of_gradients(features_and_cotangents, monkeypatch):
    engine = limited("shapes", 64)
    whole = engine.gradients(*features_and_cotangents)
    spy = Spy(engine, full="gradient", room=4)
    monkeypatch.setattr(engine.sessions, "run", spy)
    result = engine.gradients(*features_and_cotangents)
    assert spy.rows["gradient"] == [12, 6, 3, 3, 3, 3]
    assert (whole.halved, result.halved, result.batch) == (False, True, 3)
    np.testing.assert_allclose(result.values, whole.values, rtol=0, atol=1e-6)


def test_a_full_device_halves_the_images_themselves(engine, monkeypatch):
    x = np.random.default_rng(8).random((7, 3, 32, 32), np.float32)
    image = engine.put(x)
    features, on_device, logits = engine.whole_in_chunks(x, image)
    assert np.array_equal(on_device.numpy(), features)
    spy = Spy(engine, full="whole", room=2)
    monkeypatch.setattr(engine.sessions, "run", spy)
    in_parts, nowhere, result = engine.whole_in_chunks(x, image)
    assert spy.rows["whole"] == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    assert (logits.halved, result.halved, nowhere) == (False, True, None)
    np.testing.assert_allclose(in_parts, features, rtol=0, atol=1e-6)
    np.testing.assert_allclose(result.values, logits.values, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["cluster-cam", "group-cam", "recipro-cam"])
@pytest.mark.parametrize("room", [1, 2, 3])
def test_a_list_goes_on_where_its_images_fit_one_by_one_alone(tiny_bundle, monkeypatch, method, room):
    photos = list(np.random.default_rng(9).integers(0, 256, (19, 32, 32, 3), np.uint8))
    explainer = camrt.load(tiny_bundle, ["cpu"], max_masked_batch=64)
    expected = explainer.explain(photos, method=method)
    monkeypatch.setattr(explainer.engine.sessions, "run", Spy(explainer.engine, "whole", room))
    found = explainer.explain(photos, method=method)
    assert len(found) == 19
    assert ["chunk_halved" in one.notes for one in found] == [True] * 8 + [False] * 11  # it is remembered
    for one, other in zip(found, expected, strict=True):
        assert one.run.passes == other.run.passes
        np.testing.assert_allclose(one.maps, other.maps, rtol=0, atol=1e-4 * float(np.abs(other.maps).max()))


def test_a_stream_goes_on_where_its_images_fit_one_by_one_alone(tiny_bundle, monkeypatch):
    photos = list(np.random.default_rng(9).integers(0, 256, (19, 32, 32, 3), np.uint8))
    explainer = camrt.load(tiny_bundle, ["cpu"], max_masked_batch=64)
    monkeypatch.setattr(explainer.engine.sessions, "run", Spy(explainer.engine, "whole", room=1))
    assert ["chunk_halved" in one.notes for one in explainer.explain_many(photos)] == [True] * 8 + [False] * 11


def test_a_blurred_baseline_goes_on_where_its_images_fit_one_by_one_alone(tiny_bundle, monkeypatch):
    photos = list(np.random.default_rng(9).integers(0, 256, (4, 32, 32, 3), np.uint8))
    explainer = camrt.load(tiny_bundle, ["cpu"], max_masked_batch=64)
    spy = Spy(explainer.engine)
    monkeypatch.setattr(explainer.engine.sessions, "run", spy)
    expected = explainer.explain(photos, baseline="blur")
    assert spy.rows["whole"] == [4, 4]
    spy.rows["whole"].clear()

    def full_later(graph, feeds, *outputs):
        spy.full, spy.room = ("whole", 1) if spy.rows["whole"] else ("", 0)
        return spy(graph, feeds, *outputs)

    monkeypatch.setattr(explainer.engine.sessions, "run", full_later)
    found = explainer.explain(photos, baseline="blur")
    assert spy.rows["whole"] == [4, 4, 2, 1, 1, 1, 1]
    for one, other in zip(found, expected, strict=True):
        assert "chunk_halved" in one.notes
        np.testing.assert_allclose(one.maps, other.maps, rtol=0, atol=1e-4 * float(np.abs(other.maps).max()))


@pytest.mark.parametrize(("method", "parameters", "graph", "room", "masked_batch"), [
    ("cluster-cam", {"clusters": 6}, "score", 5, 3), ("hires-cam", {}, "gradient", 2, 0), ("ablation-cam", {}, "tail", 5, 0),
    ("group-cam", {"groups": 4}, "gradient", 2, 2),
])  # fmt: skip
def test_a_halved_chunk_is_noted_in_the_explanation(
    tiny_bundle, pixels, monkeypatch, method, parameters, graph, room, masked_batch
):
    explainer = camrt.load(tiny_bundle, providers=["cpu"], max_masked_batch=64)
    before = explainer.explain(pixels, top=5, method=method, **parameters)
    assert "chunk_halved" not in before.notes
    monkeypatch.setattr(explainer.engine.sessions, "run", Spy(explainer.engine, graph, room))
    explanation = explainer.explain(pixels, top=5, method=method, **parameters)
    assert "chunk_halved" in explanation.notes
    assert explanation.run.masked_batch == masked_batch
    np.testing.assert_allclose(explanation.heatmap, before.heatmap, rtol=0, atol=1e-4)


@pytest.mark.parametrize("graph", ["score", "gradient", "tail"])
def test_no_room_for_a_single_image_is_an_error(engine, x, monkeypatch, graph):
    features = np.ones((2, 12, 8, 8), np.float32)
    monkeypatch.setattr(engine.sessions, "run", Spy(engine, graph, room=0))
    with pytest.raises(DeviceMemoryError, match="no memory for [12] image.* of 32 x 32. Explain fewer images at once"):
        {
            "score": lambda: masked(engine, x, np.ones((2, 4, 8, 8), np.float32)),
            "gradient": lambda: engine.gradients(features, np.ones((2, 3, 5), np.float32)),
            "tail": lambda: engine.edited_logits(2, *parts(np.ones((2, 4, 12, 8, 8), np.float32)), everything),
        }[graph]()


def test_other_failures_of_a_session_are_not_taken_for_a_full_device(engine, x):
    with pytest.raises(BundleError, match="failed on cpu: .*data type"):
        masked(engine, x, np.ones((2, 4, 5, 5), np.float32).astype(np.float64))


def test_a_batch_of_none_is_refused(tiny_bundle):
    with pytest.raises(ParameterError, match="max_masked_batch must be a whole number from 1"):
        Engine(open_bundle(tiny_bundle), max_masked_batch=0)


@pytest.mark.parametrize("when", ["sometimes", True, None])
def test_threads_spin_at_known_times_only(tiny_bundle, when):
    with pytest.raises(ParameterError, match="spinning must be one of running, always, never, got"):
        Engine(open_bundle(tiny_bundle), ["cpu"], spinning=when)
