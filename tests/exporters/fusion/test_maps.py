from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camrt import heatmap, image
from camrt.heatmap import Outcome
from exporters.fusion import maps

from .helpers import emitted

SIZES = [((8, 8), (32, 32)), ((3, 5), (17, 40)), ((1, 1), (9, 9)), ((1, 4), (8, 16)), ((7, 7), (7, 7)), ((12, 9), (96, 50))]
sizes = pytest.mark.parametrize(("cells", "size"), SIZES)


def smooth(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(0, 1, shape).astype(np.float32)


def some_flat(rng: np.random.Generator, cells: tuple[int, int]) -> np.ndarray:
    """Return maps (2, 6, h, w): ordinary, zeros, constant, negative, tiny and huge."""
    found = smooth(rng, 2, 6, *cells)
    found[:, 1], found[:, 2] = 0, 4.2
    found[:, 3] = -np.abs(found[:, 3]) - 1
    found[:, 4] *= 1e-20
    found[:, 5] *= 1e20
    return found


# --- upsampling and scaling -------------------------------------------------------------------------------------------------
@sizes
def test_upsampled_maps_equal_opencvs(rng, cells, size):
    given = smooth(rng, 2, 3, *cells)
    (found,) = emitted(lambda op, m: maps.upsample(op, m, maps.window(op, cells, size)), {"m": given})
    np.testing.assert_allclose(found, image.upsample(given, size), atol=2e-5)


@sizes
def test_maps_with_aligned_corners_are_the_runtimes(rng, cells, size):
    given = smooth(rng, 2, 3, *cells)
    (found,) = emitted(lambda op, m: maps.upsample(op, m, maps.window(op, cells, size, aligned=True)), {"m": given})
    rows, columns = (image.upsampling_matrix(n, out, aligned=True) for n, out in zip(cells, size, strict=True))
    np.testing.assert_allclose(found, rows @ given @ columns.T, atol=2e-5)


@sizes
@pytest.mark.parametrize("opset", [13, 18])
def test_normalised_maps_are_the_runtimes(rng, cells, size, opset):
    given = some_flat(rng, cells)
    (found,) = emitted(lambda op, m: maps.normalised(op, m, maps.window(op, cells, size)), {"m": given}, opset)
    np.testing.assert_allclose(found, image.normalise(given, size), atol=1e-5)
    assert not found[:, 1:3].any()


def test_normalised_maps_become_0_to_1_when_they_are_upsampled(rng):
    given = smooth(rng, 1, 4, 6, 5)

    def emit(op, m):
        to = maps.window(op, (6, 5), (33, 41))
        return maps.upsample(op, maps.normalised(op, m, to), to)

    (found,) = emitted(emit, {"m": given})
    np.testing.assert_allclose(found.min(axis=(2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(found.max(axis=(2, 3)), 1, atol=1e-5)


@sizes
def test_scaled_maps_are_the_runtimes(rng, cells, size):
    given = some_flat(rng, cells)
    (found,) = emitted(lambda op, m: maps.scaled(op, m), {"m": given})
    np.testing.assert_allclose(found, image.scaled(given), atol=1e-6)


@pytest.mark.parametrize(("variation", "flat"), [(0.5e-6, True), (4e-6, False)])
def test_a_map_that_varies_by_a_trace_is_flat(variation, flat):
    given = np.full((1, 1, 2, 2), -8, np.float32)
    given[0, 0, 0, 0] *= 1 - variation
    (found,) = emitted(lambda op, m: maps.scaled(op, m), {"m": given})
    assert (not found.any()) == flat == (not image.scaled(given).any())


# --- heatmaps -----------------------------------------------------------------------------------------------------------------
def in_graph(signed: np.ndarray, features: np.ndarray, finite: np.ndarray, size: tuple[int, int] = (20, 27)):
    """Return heatmaps and outcomes, and hold that they are the Python runtime's."""
    shape = signed.shape[2:]

    def emit(op, signed, finite, features):
        to = maps.window(op, shape, size)
        found = maps.heatmaps(op, signed, finite, maps.flat_features(op, features), to)
        return found.heatmaps, found.outcomes

    found, codes = emitted(emit, {"signed": signed, "finite": finite[:, None], "features": features})
    clean = np.where(finite[:, None, None, None], signed, 0)  # as the explainer hands them over
    assert codes.dtype == np.int64
    assert codes.tolist() == heatmap.outcomes(clean, features, finite, size).tolist()
    np.testing.assert_allclose(found, heatmap.heatmap(clean, size), atol=1e-5)
    return found, codes


def test_ordinary_maps_are_ok_and_reach_from_0_to_1(rng):
    found, codes = in_graph(smooth(rng, 2, 3, 5, 7), smooth(rng, 2, 4, 5, 7), np.ones(2, bool))
    assert (codes == Outcome.OK).all()
    assert found.max() == pytest.approx(1)
    assert found.min() == 0


def test_a_positive_map_is_stretched_from_its_least_value(rng):
    found, _ = in_graph(np.abs(smooth(rng, 1, 1, 5, 7)) + 3, smooth(rng, 1, 4, 5, 7), np.ones(1, bool))
    assert found.min() == 0


def test_every_target_has_an_outcome_of_its_own(rng):
    signed = smooth(rng, 1, 7, 5, 7)
    signed[0, 1] = -np.abs(signed[0, 1])
    signed[0, 2] = 3.5
    signed[0, 3, 2, 2] = np.nan
    signed[0, 4, 0, 6] = np.inf
    signed[0, 5, 4, 0] = -np.inf
    signed[0, 6] = 0
    found, codes = in_graph(signed, smooth(rng, 1, 4, 5, 7), np.ones(1, bool))
    bad, none = Outcome.NOT_FINITE, Outcome.NO_POSITIVE_EVIDENCE
    assert codes[0].tolist() == [Outcome.OK, none, Outcome.FLAT_MAP, bad, bad, bad, none]
    assert found[0].any(axis=(1, 2)).tolist() == [True] + [False] * 6


@pytest.mark.parametrize(("value", "outcome"), [
    (0.0, Outcome.FLAT_MAP), (-1.0, Outcome.FLAT_MAP), (2.0, Outcome.FLAT_MAP), (np.nan, Outcome.NOT_FINITE),
])  # fmt: skip
def test_flat_features_make_what_is_not_positive_a_flat_map(value, outcome):
    features = np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1) * np.ones((1, 4, 5, 7), np.float32)
    _, codes = in_graph(np.full((1, 1, 5, 7), value, np.float32), features, np.ones(1, bool))
    assert codes.tolist() == [[outcome]]


def test_a_map_that_is_not_flat_is_ok_even_if_the_features_are(rng):
    _, codes = in_graph(smooth(rng, 1, 1, 5, 7), np.ones((1, 4, 5, 7), np.float32), np.ones(1, bool))
    assert codes.tolist() == [[Outcome.OK]]


def test_one_feature_map_that_varies_is_enough(rng):
    features = np.ones((2, 4, 5, 7), np.float32)
    features[1, 3, 4, 6] = 2
    _, codes = in_graph(np.zeros((2, 1, 5, 7), np.float32), features, np.ones(2, bool))
    assert codes.tolist() == [[Outcome.FLAT_MAP], [Outcome.NO_POSITIVE_EVIDENCE]]


def test_an_image_on_which_the_network_was_not_finite_has_zeros(rng):
    found, codes = in_graph(smooth(rng, 3, 2, 5, 7), smooth(rng, 3, 4, 5, 7), np.array([True, False, True]))
    assert codes.tolist() == [[0, 0], [3, 3], [0, 0]]
    assert found.any(axis=(1, 2, 3)).tolist() == [True, False, True]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**31), st.floats(-3, 3), st.integers(-18, 18))
def test_heatmaps_of_maps_of_any_size_and_offset_are_the_runtimes(seed, offset, exponent):
    rng = np.random.default_rng(seed)
    signed = (smooth(rng, 2, 2, 4, 4) + np.float32(offset)) * np.float32(10.0**exponent)
    in_graph(signed, smooth(rng, 2, 2, 4, 4), np.ones(2, bool), (12, 15))
