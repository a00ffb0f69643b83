"""Explainer.explain_many: what a stream gives is what one by one gives, whatever happens to some images on the way."""

from __future__ import annotations

import importlib
import itertools
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import camrt
from camrt import Explanation, Failure
from camrt.errors import (
    BundleError,
    DeviceMemoryError,
    ExplanationError,
    ImageError,
    MethodUnavailable,
    ParameterError,
    UnknownMethod,
    UnknownTarget,
)
from tests import graphs

from .conftest import SAMPLES

METHODS = [("cluster-cam", {}), ("grad-cam", {}), ("recipro-cam", {}), ("rise", {"masks": 20}), ("eigen-cam", {})]


def photos(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (20 + 3 * (i % 7), 50 - i % 5, 3), np.uint8) for i in range(count)]


def assert_equal(found: Explanation, alone: Explanation) -> None:
    assert [t.index for t in found.targets] == [t.index for t in alone.targets]
    assert [t.probability for t in found.targets] == pytest.approx([t.probability for t in alone.targets], abs=1e-5)
    assert found.maps == pytest.approx(alone.maps, abs=1e-4 * max(1, float(np.abs(alone.maps).max())))
    assert np.array_equal(found.photo.pixels, alone.photo.pixels)
    assert (found.run.passes, found.run.method) == (alone.run.passes, alone.run.method)


@pytest.fixture(autouse=True)
def _no_threads_are_left():
    yield
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("camrt-")]


@pytest.fixture
def own(tiny_bundle) -> camrt.Explainer:
    """An explainer that a test may break."""
    return camrt.load(tiny_bundle, providers=["cpu"])


# --- what comes back ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("method", "parameters"), METHODS)
@pytest.mark.parametrize(
    "asked", [{}, {"target": "dog"}, {"targets": [0, "honeybee"], "versus": "dog"}, {"top": 3}, {"versus": 4}], ids=str
)
def test_a_stream_equals_one_by_one(tiny, method, parameters, asked):
    options = {"method": method, **parameters, **asked}
    images = photos(19)
    for image, found in zip(images, tiny.explain_many(images, **options), strict=True):
        assert_equal(found, tiny.explain(image, **options))


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 16])
def test_a_stream_gives_as_many_as_it_took(tiny, count):
    found = list(tiny.explain_many(photos(count), clusters=3))
    assert [e.photo.pixels.shape for e in found] == [p.shape for p in photos(count)]


@pytest.mark.parametrize("method", ["cluster-cam", "grad-cam"])
def test_two_equal_streams_are_equal_to_the_bit(shapes, method):
    scenes = sorted(SAMPLES.glob("*.png")) * 4
    one, other = (list(shapes.explain_many(scenes, top=2, method=method)) for _ in range(2))
    for a, b in zip(one, other, strict=True):
        assert a.targets == b.targets
        assert np.array_equal(a.maps, b.maps)


def test_a_stream_equals_a_list_to_the_bit(tiny):
    images = photos(20)
    for found, expected in zip(tiny.explain_many(images), tiny.explain(images), strict=True):
        assert np.array_equal(found.maps, expected.maps)


def test_several_streams_and_single_images_share_an_explainer_to_the_bit(tiny_bundle, tiny):
    sets = [photos(20, seed) for seed in range(4)]
    expected = [tiny.explain(images, top=2) for images in sets]
    single = tiny.explain(sets[0][0])
    shared = camrt.load(tiny_bundle, providers=["cpu"])  # fresh, so that the streams race for its first use too
    with ThreadPoolExecutor(8) as pool:
        streams = [pool.submit(lambda images: list(shared.explain_many(images, top=2)), images) for images in sets]
        alone = [pool.submit(shared.explain, sets[0][0]) for _ in range(10)]
    for stream, serial in zip(streams, expected, strict=True):
        for a, b in zip(stream.result(), serial, strict=True):
            assert np.array_equal(a.maps, b.maps)
            assert a.targets == b.targets
    assert all(np.array_equal(one.result().maps, single.maps) for one in alone)


def test_images_come_as_paths_bytes_arrays_and_photos_from_any_iterable(tiny):
    path = SAMPLES / "star.png"
    kinds: list[Any] = [str(path), path, path.read_bytes(), bytearray(path.read_bytes()), camrt.load_photo(path)]
    kinds.append(camrt.load_photo(path).pixels)
    expected = tiny.explain(path).maps
    for images in (kinds, tuple(kinds), iter(kinds), (kind for kind in kinds), np.stack([kinds[-1]] * 3), {path: 1}):
        for found in tiny.explain_many(images):
            assert found.maps == pytest.approx(expected, abs=1e-4)


def test_a_source_may_use_its_buffer_again(tiny):
    images = photos(1) * 20

    def frames(kind):
        buffer = np.zeros_like(images[0])
        for i, image in enumerate(images):
            buffer[:] = image // (1 + i % 3)
            yield kind(buffer)

    for kind in (lambda array: array, lambda array: array[::-1, ::-1], memoryview_of):
        expected = [image // (1 + i % 3) for i, image in enumerate(images)]
        for found, image in zip(tiny.explain_many(frames(kind), clusters=3), expected, strict=True):
            assert np.array_equal(found.photo.pixels, image[::-1, ::-1] if kind(image).base is image else image)


def memoryview_of(array: np.ndarray) -> Any:
    """Return an object that shows an array's pixels and is none."""

    class Frame:
        base = None
        __array_interface__ = array.__array_interface__

    return Frame()


def test_timings_are_an_images_own_and_tell_of_the_wait(tiny):
    for explanation in tiny.explain_many(photos(20)):
        timings = explanation.run.timings
        assert set(timings) == {"decode", "preprocess", "wait", "forward", "cluster", "masked", "tail", "merge", "total"}
        assert sum(ms for stage, ms in timings.items() if stage != "total") <= timings["total"] * (1 + 1e-9)


def test_a_groups_time_is_shared_among_its_images(own, monkeypatch):
    whole = own.engine.whole
    monkeypatch.setattr(own.engine, "whole", lambda image: time.sleep(0.2) or whole(image))
    (total,) = {sum(e.run.timings["forward"] for e in own.explain_many(photos(5)))}
    assert 200 <= total < 400


# --- groups ---------------------------------------------------------------------------------------------------------------
def count_calls(explainer: camrt.Explainer, monkeypatch) -> list[int]:
    """Return the list to which every group adds its size."""
    sizes: list[int] = []
    whole = explainer.engine.whole

    def counted(image):
        sizes.append(image.shape()[0])
        return whole(image)

    monkeypatch.setattr(explainer.engine, "whole", counted)
    return sizes


def test_images_go_through_the_network_in_groups(own, monkeypatch):
    sizes = count_calls(own, monkeypatch)
    list(own.explain_many(photos(20), method="grad-cam"))
    assert sizes == [5, 5, 5, 5]  # as many as share a call on the CPU


def test_a_group_of_large_photos_is_smaller(own, monkeypatch):
    monkeypatch.setattr(camrt.explainer, "PIXELS_PER_GROUP", 2500)
    sizes, images = count_calls(own, monkeypatch), list(np.zeros((7, 40, 50, 3), np.uint8))
    assert len(list(own.explain_many(images, method="grad-cam"))) == 7
    assert sizes == [3, 3, 1]  # two are more than enough, and the third was in hand by then


def test_a_group_is_no_larger_than_the_masked_batch(tiny_bundle):
    explainer = camrt.load(tiny_bundle, ["cpu"], max_masked_batch=1)
    images = photos(5)
    for image, found in zip(images, explainer.explain_many(images), strict=True):
        assert found.run.masked_batch == 1
        assert np.array_equal(found.maps, explainer.explain(image).maps)


def test_images_that_cannot_share_a_call_go_one_by_one(tmp_path, monkeypatch):
    import exporters

    body = """
        c = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)  r = Relu (c)  p = GlobalAveragePool (r)  f = Flatten (p)
        q, scale, zero = DynamicQuantizeLinear (f)  d = DequantizeLinear (q, scale, zero)  scores = Gemm (d, fc)
        """
    built = graphs.parse(body, image="N,3,32,32", w=(12, 3, 3, 3), fc=(12, 5))
    exporters.export(graphs.save(built, tmp_path / "m.onnx"), tmp_path / "bundle", overrides={"scale": 1 / 255})
    explainer = camrt.load(tmp_path / "bundle", ["cpu"])
    assert explainer.manifest.one_by_one is not None
    sizes = count_calls(explainer, monkeypatch)
    images = photos(5)
    found = list(explainer.explain_many(images, method="recipro-cam"))
    assert sizes == [1] * 5
    for image, explanation in zip(images, found, strict=True):
        assert np.array_equal(explanation.maps, explainer.explain(image, method="recipro-cam").maps)


@pytest.mark.parametrize("method", ["cluster-cam", "grad-cam", "recipro-cam"])
def test_the_device_computes_for_one_group_at_a_time(own, monkeypatch, method):
    inside, most = 0, 0
    run = own.engine.sessions.run

    def counted(*arguments):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.002)
        try:
            return run(*arguments)
        finally:
            inside -= 1

    monkeypatch.setattr(own.engine.sessions, "run", counted)
    list(own.explain_many(photos(40), method=method))
    assert most == 1


def test_one_groups_maps_are_clustered_while_the_other_is_on_the_device(own, monkeypatch):
    monkeypatch.setattr(camrt.explainer, "WORKERS", {"cpu": 2})  # as many as a GPU needs
    cluster_cam = importlib.import_module("camrt.methods.cluster_cam")
    forward, masked, clustering = (threading.Event() for _ in range(3))
    forwards, first = itertools.count(1), list[int]()
    whole, run, cluster = own.engine.whole, own.engine.masked_logits, cluster_cam._cluster

    def noted_whole(image):
        if next(forwards) == 2:
            forward.set()
        return whole(image)

    def noted_run(*arguments):
        masked.set()
        assert clustering.wait(10)
        return run(*arguments)

    def noted_cluster(*arguments):
        first.append(threading.get_ident())
        if first[0] == threading.get_ident():
            assert forward.wait(10)  # of the second group, while the first is clustered
        else:
            assert masked.wait(10)  # of the first group, while the second is clustered
            clustering.set()
        return cluster(*arguments)

    monkeypatch.setattr(own.engine, "whole", noted_whole)
    monkeypatch.setattr(own.engine, "masked_logits", noted_run)
    monkeypatch.setattr(cluster_cam, "_cluster", noted_cluster)
    assert len(list(own.explain_many(photos(10)))) == 10


# --- bad images -----------------------------------------------------------------------------------------------------------
def bad_images(folder: Path) -> list[Any]:
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("no photo")

    class Odd:
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other):
            raise ValueError

        @property
        def __array__(self):
            raise RuntimeError("not today")

    return [
        folder / "missing.png", str(folder / "empty.png"), folder / "text.jpg", folder, b"", b"\xff\xd8\xff", None, 7, {}, [],
        np.zeros((3, 4, 5, 6)), np.full((4, 4, 3), np.nan), np.zeros((0, 4, 3), np.uint8), np.array([object()]), object(), Odd(),
        np.broadcast_to(np.uint8(0), (1 << 20, 1 << 20, 3)), "nul\0.png", b"nul\0",
    ]  # fmt: skip


def test_bad_images_are_failures_among_good_ones(tiny, tmp_path):
    good, bad = photos(20), bad_images(tmp_path)
    images = [image for pair in itertools.zip_longest(good, bad) for image in pair if image is not None]
    for image, found in zip(images, tiny.explain_many(images, clusters=3), strict=True):
        if any(image is one for one in good):
            assert_equal(found, tiny.explain(image, clusters=3))
        else:
            assert isinstance(found, Failure)
            assert found.image is image
            assert isinstance(found.error, ImageError)
            assert "\n" not in str(found.error)
            assert repr(found)


def test_nothing_but_bad_images_is_nothing_but_failures(tiny, tmp_path):
    bad = [*bad_images(tmp_path), None]
    assert [type(found.error) for found in tiny.explain_many(bad)] == [ImageError] * len(bad)


def test_a_failure_goes_to_another_process(tiny):
    (failure,) = tiny.explain_many(["missing.png"])
    again = pickle.loads(pickle.dumps(failure))
    assert (again.image, str(again.error)) == ("missing.png", str(failure.error))


def test_an_image_that_does_not_fit_onto_the_device_is_a_failure_alone(own, monkeypatch):
    images = photos(12)
    images[5][:] = 255
    whole = own.engine.whole

    def full(image):
        if image.numpy().min(axis=(1, 2, 3)).max() == 1:
            raise DeviceMemoryError("cpu has no memory left")
        return whole(image)

    monkeypatch.setattr(own.engine, "whole", full)
    found = list(own.explain_many(images, method="grad-cam"))
    assert [i for i, one in enumerate(found) if isinstance(one, Failure)] == [5]
    assert isinstance(found[5].error, DeviceMemoryError)


# --- then -----------------------------------------------------------------------------------------------------------------
def test_what_then_returns_takes_the_explanations_place(tiny):
    found = list(
        tiny.explain_many(photos(10), then=lambda explanation: (explanation.photo.pixels.shape, explanation.heatmap.shape))
    )
    assert found == [(p.shape, (1, *p.shape[:2])) for p in photos(10)]


def test_then_saves_in_threads_and_what_cannot_be_written_is_a_failure(tiny, tmp_path):
    images = [SAMPLES / "star.png", SAMPLES / "heart.png", SAMPLES / "circle.png"]
    (tmp_path / "heart.npy").mkdir()
    star, heart, circle = tiny.explain_many(images, then=lambda explanation: explanation.save(tmp_path))
    assert star[-1] == tmp_path / "star.explanation.json"
    assert circle[-1].exists()
    assert heart.image == images[1]
    assert isinstance(heart.error, ExplanationError)


@pytest.mark.parametrize(
    "error", [KeyError("mine"), OSError("disk full"), BundleError("mine"), ParameterError("mine"), SystemExit(3)]
)
def test_another_error_of_then_ends_the_stream_in_its_images_place(tiny, error):
    images = photos(20)

    def then(explanation: Explanation) -> int:
        if np.array_equal(explanation.photo.pixels, images[10]):
            raise error
        return 1

    found: list[int] = []
    with pytest.raises(type(error)) as caught:
        found.extend(tiny.explain_many(images, then=then))
    assert caught.value is error
    assert found == [1] * 10


def test_then_may_explain_on_the_same_explainer(tiny):
    def again(explanation: Explanation) -> np.ndarray:
        return tiny.explain(explanation.photo.pixels, target="dog", clusters=3).maps

    images = photos(20)
    for image, maps in zip(images, tiny.explain_many(images, then=again, clusters=3), strict=True):
        assert np.array_equal(maps, tiny.explain(image, target="dog", clusters=3).maps)


def test_a_stream_within_a_stream_and_a_stream_of_a_stream(tiny):
    images = photos(10)

    def inner(explanation: Explanation) -> int:
        return len(list(tiny.explain_many([explanation.photo] * 9, clusters=3)))

    assert list(tiny.explain_many(images, then=inner, clusters=3)) == [9] * 10
    first = tiny.explain_many(images, then=lambda explanation: explanation.photo)
    assert len([e for e in tiny.explain_many(first) if isinstance(e, Explanation)]) == 10


# --- what was asked -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("asked", "error", "text"), [
    ({"target": "dgo"}, UnknownTarget, "Did you mean 'dog'"),
    ({"target": 1, "top": 2}, ParameterError, "one of target, targets and top"),
    ({"target": "dog", "versus": "dog"}, ParameterError, "versus must be another class"),
    ({"method": "grad-kam"}, UnknownMethod, "Did you mean 'grad-cam'"),
    ({"cluster": 3}, ParameterError, "'cluster'"),
    ({"clusters": 0}, ParameterError, "clusters must be"),
    ({"then": 3}, ParameterError, "then must be a function of an explanation, got 3"),
])  # fmt: skip
def test_what_cannot_be_asked_is_refused_at_once_and_nothing_is_taken(tiny, asked, error, text):
    images = iter(photos(1))
    with pytest.raises(error, match=text):
        tiny.explain_many(images, **asked)
    assert len(list(images)) == 1


@pytest.mark.parametrize(("images", "text"), [
    ("photo.jpg", "got str"), (Path("photo.jpg"), "got PosixPath"), (b"\xff\xd8", "got bytes"), (bytearray(2), "got bytearray"),
    (None, "got NoneType"), (3, "got int"), (np.zeros((4, 5, 3), np.uint8), r"got an array of shape \(4, 5, 3\)"),
    (np.zeros((4, 5)), "got an array"), (camrt.load_photo(SAMPLES / "star.png"), "got Photo"),
])  # fmt: skip
def test_one_image_is_no_iterable_of_images(tiny, images, text):
    with pytest.raises(ParameterError, match=f"images must be an iterable of images, {text}.*Put one image into a list"):
        tiny.explain_many(images)


def test_what_the_tail_lacks_shows_with_the_first_group(shapes):
    with pytest.raises(MethodUnavailable, match="global average pooling"):
        list(shapes.explain_many([SAMPLES / "star.png"], method="cam"))


def test_a_bundle_that_fails_ends_the_stream(own, monkeypatch):
    def fails(*_):
        raise BundleError("a graph failed")

    monkeypatch.setattr(own.engine, "masked_logits", fails)
    with pytest.raises(BundleError, match="a graph failed"):
        list(own.explain_many(photos(40)))


# --- readers who leave ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("method", "asked"), [
    ("rise", {"masks": 100_000}), ("ablation-cam", {}), ("grad-cam", {"top": 5}), ("group-cam", {"top": 5}),
])  # fmt: skip
def test_a_reader_who_leaves_waits_for_one_call_not_for_the_group(own, monkeypatch, method, asked):
    own.engine.max_masked_batch = own.engine.max_edited_batch = 8  # so that a group takes several calls
    calls, entered = itertools.count(), threading.Event()
    run = own.engine.sessions.run

    def slow(*arguments):
        if next(calls) > 2:
            entered.set()
            time.sleep(0.1)
        return run(*arguments)

    def interrupted():
        yield from photos(8)
        assert entered.wait(10)
        raise KeyboardInterrupt

    monkeypatch.setattr(own.engine.sessions, "run", slow)
    with pytest.raises(KeyboardInterrupt):
        list(own.explain_many(interrupted(), method=method, **asked))
    assert next(calls) <= 6


def test_the_explainer_serves_on_after_a_reader_left(tiny):
    expected = tiny.explain(photos(1)[0]).maps
    for read in range(12):
        with closing(tiny.explain_many(itertools.cycle(photos(9)))) as results:
            assert len(list(itertools.islice(results, read))) == read
    assert np.array_equal(tiny.explain(photos(1)[0]).maps, expected)


def test_no_more_is_taken_than_is_on_the_way(tiny):
    taken: list[np.ndarray] = []
    source = (taken.append(image) or image for image in itertools.cycle(photos(9)))
    with closing(tiny.explain_many(source, clusters=2)) as results:
        for read, _ in enumerate(itertools.islice(results, 60)):
            assert len(taken) - read <= 24
