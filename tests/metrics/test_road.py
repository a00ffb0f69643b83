from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camrt.errors import MethodUnavailable, ParameterError
from camrt.metrics import impute, road


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def random_mask(seed: int, height: int, width: int, share: float) -> np.ndarray:
    removed = np.random.default_rng(seed).random((height, width)) < share
    removed[0, 0] = False
    return removed


def dense(x: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """Return the imputed image (C, H, W) by one dense system, written down pixel by pixel."""
    places = [tuple(p) for p in np.argwhere(removed)]
    matrix, right = np.zeros((len(places), len(places))), np.zeros((len(places), len(x)))
    for i, (row, column) in enumerate(places):
        for r, c in np.ndindex(3, 3):
            place = row + r - 1, column + c - 1
            weight = {0: 0, 1: 1 / 6, 2: 1 / 12}[abs(r - 1) + abs(c - 1)]
            if 0 <= place[0] < x.shape[1] and 0 <= place[1] < x.shape[2]:
                matrix[i, i] += weight
                if place in places:
                    matrix[i, places.index(place)] -= weight
                else:
                    right[i] += weight * x[:, place[0], place[1]]
    out = x.astype(np.float64)
    out[:, removed] = np.linalg.solve(matrix, right).T
    return out


# --- imputation -------------------------------------------------------------------------------------------------------
def test_one_pixel_becomes_the_weighted_mean_of_its_neighbours():
    x = np.arange(9, dtype=np.float32).reshape(1, 3, 3) ** 2
    removed = np.zeros((3, 3), bool)
    removed[1, 1] = True
    expected = (x[0, 0, 1] + x[0, 1, 0] + x[0, 1, 2] + x[0, 2, 1]) / 6 + x[0, ::2, ::2].sum() / 12
    assert impute(x, removed, noise=0)[0, 1, 1] == pytest.approx(expected)


def test_at_the_corner_the_neighbours_that_exist_share_the_weight():
    x = np.array([[[0, 1], [2, 10]]], np.float32)
    removed = np.array([[True, False], [False, False]])
    assert impute(x, removed, noise=0)[0, 0, 0] == pytest.approx((1 / 6 + 2 / 6 + 10 / 12) / (5 / 12))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 99), st.integers(1, 9), st.integers(2, 9), st.floats(0, 1))
def test_it_solves_the_same_equations_as_a_dense_system(seed, height, width, share):
    x, removed = noise(seed, 3, height, width), random_mask(seed, height, width, share)
    np.testing.assert_allclose(impute(x, removed, noise=0), dense(x, removed), rtol=0, atol=1e-5)


def test_a_linear_ramp_is_restored_inside_the_image():
    y, x = np.mgrid[:40, :50]
    ramp = np.stack([0.1 * x + 0.05 * y, -0.2 * x, 0.3 * y]).astype(np.float32)
    removed = np.zeros((40, 50), bool)
    removed[1:-1, 1:-1] = random_mask(0, 38, 48, 0.9)
    np.testing.assert_allclose(impute(ramp, removed, noise=0), ramp, rtol=0, atol=1e-5)


@pytest.mark.parametrize("share", [0.1, 0.9, 1.0])
def test_a_constant_image_is_restored_up_to_its_border(share):
    x = np.full((3, 24, 24), 0.7, np.float32)
    np.testing.assert_allclose(impute(x, random_mask(0, 24, 24, share), noise=0), x, rtol=0, atol=1e-5)


@given(st.integers(0, 99), st.floats(0.05, 0.99))
@settings(max_examples=25, deadline=None)
def test_what_is_imputed_stays_within_the_range_of_what_is_kept(seed, share):
    x, removed = noise(seed, 2, 12, 10), random_mask(seed, 12, 10, share)
    found = impute(x, removed, noise=0)
    for plane, kept in zip(found, x[:, ~removed], strict=True):
        assert kept.min() - 1e-5 <= plane.min() <= plane.max() <= kept.max() + 1e-5


def test_kept_pixels_stay_as_they_are_and_nothing_removed_changes_nothing():
    x, removed = noise(0, 3, 12, 12), random_mask(0, 12, 12, 0.5)
    assert np.array_equal(impute(x, removed)[:, ~removed], x[:, ~removed])
    assert np.array_equal(impute(x, np.zeros((12, 12), bool)), x)


def test_noise_lies_on_removed_pixels_alone_and_is_seeded():
    x, removed = np.zeros((3, 64, 64), np.float32), random_mask(0, 64, 64, 0.5)
    found = impute(x, removed)[:, removed]
    assert found.std(axis=1) == pytest.approx(np.full(3, 0.01), rel=0.1)
    assert found.mean() == pytest.approx(0, abs=1e-3)
    assert np.array_equal(impute(x, removed, seed=0)[:, removed], found)
    assert not np.array_equal(impute(x, removed, seed=1)[:, removed], found)


def test_noise_can_differ_by_channel():
    x, removed = np.zeros((3, 64, 64), np.float32), random_mask(0, 64, 64, 0.5)
    found = impute(x, removed, noise=np.array([0.0, 0.1, 1.0]))[:, removed].std(axis=1)
    assert found == pytest.approx([0, 0.1, 1], rel=0.1)


# --- the score --------------------------------------------------------------------------------------------------------
def test_the_hottest_pixels_are_removed_first():
    removed = []

    def score(images: np.ndarray) -> np.ndarray:
        removed.extend((images != x).any(axis=1))
        return images.mean(axis=(1, 2, 3))

    x, heatmap = noise(0, 3, 10, 10), np.arange(100.0).reshape(10, 10)
    curve = road(x, heatmap, score)
    assert curve.fractions == pytest.approx(np.arange(0.1, 1, 0.1))
    for share, places in zip(range(10, 100, 10), removed, strict=True):
        assert np.array_equal(places, heatmap >= 100 - share)


def test_the_figure_is_the_mean_score():
    curve = road(noise(0, 3, 8, 8), noise(1, 8, 8), lambda images: np.arange(len(images)), (0, 50, 90))
    assert curve.fractions.tolist() == [0, 0.5, 0.9]
    assert curve.mean == 1


def test_the_same_seed_gives_the_same_scores():
    x, heatmap = noise(0, 3, 12, 12), np.zeros((12, 12))
    first, again, other = (road(x, heatmap, lambda i: i[:, 0, 0, 0], seed=seed).scores for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


# --- refusals ---------------------------------------------------------------------------------------------------------
def test_an_image_of_which_nothing_is_left_is_refused():
    with pytest.raises(ParameterError, match="All 16 pixels are removed.*Keep at least one"):
        impute(noise(0, 3, 4, 4), np.ones((4, 4), bool))


@pytest.mark.parametrize("percentiles", [(), (10, 100), (-1,), (np.nan,)])
def test_percentiles_that_leave_nothing_are_refused(percentiles):
    with pytest.raises(ParameterError, match="at least 0 and below 100, got"):
        road(noise(0, 3, 4, 4), np.ones((4, 4)), lambda images: images[:, 0, 0, 0], percentiles)


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ParameterError, match=r"bool of shape \(4, 4\), got bool of shape \(4, 3\)"):
        impute(noise(0, 3, 4, 4), np.ones((4, 3), bool))


def test_without_scipy_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    with pytest.raises(MethodUnavailable, match=r"ROAD needs SciPy.*pip install scipy"):
        impute(noise(0, 3, 4, 4), np.eye(4, dtype=bool))
