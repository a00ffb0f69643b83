"""Exact by hand: the score is the sum of the pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camrt.errors import ParameterError
from camrt.metrics import PROTOCOLS, Curve, Protocol, deletion, insertion
from camrt.metrics.curve import CHUNK, ranks

PIXELWISE = Protocol("one pixel a step", 1, 3, 1.0, cv2.BORDER_CONSTANT, points=5)


def one_row(*values: float) -> np.ndarray:
    """Return an image of three channels, (3, 1, n), whose pixels sum to `values`."""
    return np.repeat(np.array(values, np.float32)[None, None] / 3, 3, axis=0)


def pixel_sum(images: np.ndarray) -> np.ndarray:
    return images.sum(axis=(1, 2, 3))


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# --- by hand ----------------------------------------------------------------------------------------------------------
def test_deletion_of_pixel_sum_is_exact():
    curve = deletion(one_row(0.4, 0.3, 0.2, 0.1), np.array([[4, 3, 2, 1]]), pixel_sum, PIXELWISE)
    assert curve.fractions.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert curve.scores == pytest.approx([1.0, 0.6, 0.3, 0.1, 0.0])
    assert curve.area == pytest.approx(0.375)
    assert curve.mean == pytest.approx(0.4)


def test_deletion_in_the_wrong_order_has_a_larger_area():
    curve = deletion(one_row(0.4, 0.3, 0.2, 0.1), np.array([[1, 2, 3, 4]]), pixel_sum, PIXELWISE)
    assert curve.scores == pytest.approx([1.0, 0.9, 0.7, 0.4, 0.0])
    assert curve.area == pytest.approx(0.625)


def test_insertion_starts_from_the_blur_and_ends_at_the_image():
    x = one_row(0.4, 0.3, 0.2, 0.1)
    blurred = PIXELWISE.blurred(x).sum(axis=(0, 1))
    curve = insertion(x, np.array([[4, 3, 2, 1]]), pixel_sum, PIXELWISE)
    expected = [np.where(np.arange(4) < i, x.sum(axis=(0, 1)), blurred).sum() for i in range(5)]
    assert curve.scores == pytest.approx(expected)
    assert curve.scores[-1] == pytest.approx(1.0)


def test_the_three_channels_of_a_pixel_change_together():
    x = np.zeros((3, 1, 2), np.float32)
    x[:, 0, 0], x[:, 0, 1] = (1, 10, 100), (1000, 10000, 100000)
    curve = deletion(x, np.array([[1, 2]]), pixel_sum, Protocol("", 1, 3, 1.0, cv2.BORDER_CONSTANT))
    assert curve.scores.tolist() == [111111, 111, 0]


@pytest.mark.parametrize("heatmap", [np.zeros((2, 2)), np.full((2, 2), 0.5)])
def test_equal_heat_goes_in_the_order_of_rows(heatmap):
    x = np.array([[[8, 4], [2, 1]]], np.float32)
    curve = deletion(x, heatmap, pixel_sum, Protocol("", 1, 3, 1.0, cv2.BORDER_CONSTANT, points=5))
    assert curve.scores.tolist() == [15, 7, 3, 1, 0]


def test_equal_heat_keeps_its_order_in_a_whole_image():
    steps = np.repeat([[3.0], [1.0], [2.0], [1.0]], 500, axis=1)
    rank = ranks(steps, steps.shape)
    assert np.array_equal(rank, np.stack([np.arange(500) + 500 * place for place in (0, 2, 1, 3)]))


def test_heat_of_unsigned_numbers_falls_too():
    curve = deletion(one_row(1, 2, 4, 8), np.array([[0, 1, 2, 3]], np.uint8), pixel_sum, PIXELWISE)
    assert curve.scores == pytest.approx([15, 7, 3, 1, 0])


# --- protocols --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "points", "step"), [("rise", 29, 1792), ("group-cam", 113, 448)])
def test_a_protocol_has_the_published_points_at_224(name, points, step):
    counts = PROTOCOLS[name].counts(224, 224)
    assert len(counts) == points
    assert set(np.diff(counts)) == {step}
    assert (counts[0], counts[-1]) == (0, 224 * 224)


def test_a_step_that_does_not_divide_ends_with_a_shorter_one():
    assert PROTOCOLS["rise"].counts(10, 20).tolist() == [0, 80, 160, 200]
    assert PROTOCOLS["rise"].counts(10, 7).tolist() == [0, 70]


def test_a_protocol_of_points_spreads_them_evenly():
    assert Protocol("few", 8, 11, 5.0, cv2.BORDER_CONSTANT, points=4).counts(3, 4).tolist() == [0, 4, 8, 12]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(list(PROTOCOLS)), st.none() | st.integers(2, 30))
def test_counts_rise_from_none_to_all(height, width, name, points):
    points = points and max(2, min(points, height * width + 1))
    protocol = Protocol(name, PROTOCOLS[name].pixels_a_step, 11, 5.0, cv2.BORDER_CONSTANT, points)
    counts = protocol.counts(height, width)
    assert (counts[0], counts[-1]) == (0, height * width)
    assert (np.diff(counts) >= 1).all()
    assert points is None or len(counts) == points


def test_rise_blurs_with_zeros_beyond_the_border_and_group_cam_with_the_image():
    x = np.ones((3, 64, 64), np.float32)
    rise, group = (PROTOCOLS[name].blurred(x) for name in ("rise", "group-cam"))
    assert rise[:, 0, 0] == pytest.approx(np.full(3, 0.305), abs=0.01)
    assert rise[:, 32, 32] == pytest.approx(np.ones(3))
    assert group == pytest.approx(x, abs=1e-5)


@pytest.mark.parametrize("wrong", [
    {"pixels_a_step": 0}, {"points": 1}, {"blur_kernel": 4}, {"blur_kernel": -1}, {"blur_sigma": 0.0},
])  # fmt: skip
def test_a_protocol_that_cannot_be_is_refused(wrong):
    good = {"name": "", "pixels_a_step": 8, "blur_kernel": 11, "blur_sigma": 5.0, "blur_border": cv2.BORDER_CONSTANT}
    with pytest.raises(ParameterError, match="got .* Known protocols: rise, group-cam"):
        Protocol(**(good | wrong))


# --- properties -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", PROTOCOLS)
def test_curves_of_a_constant_model_are_flat(name):
    x, heatmap = noise(0, 3, 24, 16), noise(1, 24, 16)
    for curve in (run(x, heatmap, lambda images: np.full(len(images), 0.25), PROTOCOLS[name]) for run in (deletion, insertion)):
        assert set(curve.scores) == {0.25}
        assert curve.area == pytest.approx(0.25)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 99), st.floats(0.01, 100), st.floats(-10, 10))
def test_only_the_order_of_the_heat_counts(seed, scale, shift):
    x, heatmap = noise(seed, 3, 6, 5), np.random.default_rng(seed).permutation(30).reshape(6, 5).astype(float)
    for run in (deletion, insertion):
        expected = run(x, heatmap, pixel_sum, PROTOCOLS["group-cam"]).scores
        assert np.array_equal(run(x, heatmap * scale + shift, pixel_sum, PROTOCOLS["group-cam"]).scores, expected)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 99), st.integers(2, 8), st.integers(2, 8))
def test_no_order_deletes_positive_pixels_faster_than_their_own(seed, height, width):
    x = np.abs(noise(seed, 3, height, width))
    best = deletion(x, x.sum(axis=0), pixel_sum, PIXELWISE).area
    assert best <= deletion(x, noise(seed + 1, height, width), pixel_sum, PIXELWISE).area + 1e-4


def test_images_come_in_chunks_and_every_point_once():
    sizes = []

    def counted(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        assert images.dtype == np.float32
        return pixel_sum(images)

    x = np.ones((3, 40, 12), np.float32)
    protocol = Protocol("", 1, 3, 1.0, cv2.BORDER_CONSTANT, points=35)
    curve = deletion(x, noise(0, 40, 12), counted, protocol)
    assert sizes == [CHUNK, CHUNK, 3]
    assert curve.scores == pytest.approx(3 * (480 - protocol.counts(40, 12)))


def test_the_image_given_is_not_changed():
    x, heatmap = noise(0, 3, 8, 8), noise(1, 8, 8)
    kept = x.copy(), heatmap.copy()
    deletion(x, heatmap, pixel_sum, PIXELWISE)
    insertion(x, heatmap, pixel_sum, PIXELWISE)
    assert np.array_equal(x, kept[0])
    assert np.array_equal(heatmap, kept[1])


def test_the_area_counts_a_shorter_last_step_like_the_others():
    assert Curve(np.array([0, 0.8, 1.0]), np.array([1.0, 0.5, 0.0])).area == 0.5


# --- refusals ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("run", [deletion, insertion])
@pytest.mark.parametrize(("x", "heatmap", "message"), [
    (np.ones((1, 3, 4, 4)), np.ones((4, 4)), r"one preprocessed image.*\(1, 3, 4, 4\).*one by one"),
    (np.ones((3, 4, 4)), np.ones((4, 5)), "4 x 4 like the image, got 4 x 5.*network_heatmap"),
    (np.ones((3, 4, 4)), np.ones((1, 4, 4)), r"\(H, W\), got shape \(1, 4, 4\).*one target's"),
    (np.ones((3, 4, 4)), np.full((4, 4), np.nan), "finite, got NaN.*counts as zeros"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(run, x, heatmap, message):
    with pytest.raises(ParameterError, match=message):
        run(x, heatmap, pixel_sum, PIXELWISE)


def test_a_score_of_another_shape_is_refused():
    with pytest.raises(ParameterError, match=r"one number an image, \(5,\).*got shape \(5, 3\)"):
        deletion(np.ones((3, 2, 2)), np.ones((2, 2)), lambda images: images.sum(axis=(2, 3)), PIXELWISE)


def test_more_points_than_numbers_of_pixels_are_refused():
    with pytest.raises(ParameterError, match="over 6 pixels has at most 7 points"):
        Protocol("rise", 8, 11, 5.0, cv2.BORDER_CONSTANT, points=8).counts(2, 3)
