"""SciPy judges."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from camrt.errors import MethodUnavailable, ParameterError
from camrt.metrics import agreement, rank_correlation


def random_map(seed: int, levels: int = 10**6) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, levels, (12, 13)) / levels


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 99), st.sampled_from([2, 5, 10**6]))
def test_rank_correlation_equals_scipys(seed, levels):
    a = random_map(seed, levels)
    b = 0.5 * a + random_map(seed + 1, levels)
    assert rank_correlation(a, b) == pytest.approx(spearmanr(a.ravel(), b.ravel()).statistic, abs=1e-12)


def test_rank_correlation_by_hand():
    a = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert rank_correlation(a, a) == pytest.approx(1)
    assert rank_correlation(a, -a) == pytest.approx(-1)
    assert rank_correlation(a, np.array([[1.0, 3.0], [2.0, 4.0]])) == pytest.approx(1 - 6 * 2 / (4 * 15))


def test_only_the_order_counts():
    a, b = random_map(0), random_map(1)
    assert rank_correlation(np.exp(5 * a), b) == pytest.approx(rank_correlation(a, b))


TRACES = 1 / 3 + 1e-8 * np.random.default_rng(0).random((12, 13))  # of rounding, on a flat map


@pytest.mark.parametrize("flat", [np.zeros((12, 13)), np.full((12, 13), 1 / 3), TRACES])
def test_a_flat_map_correlates_with_nothing(flat):
    assert rank_correlation(flat, random_map(0)) == rank_correlation(random_map(0), flat) == rank_correlation(flat, flat) == 0


def test_agreement_is_the_mean_over_pairs():
    maps = np.stack([random_map(0), random_map(0) + 0.3 * random_map(1), random_map(2)])
    pairs = [spearmanr(maps[i].ravel(), maps[j].ravel()).statistic for i, j in [(0, 1), (0, 2), (1, 2)]]
    assert agreement(maps) == pytest.approx(np.mean(pairs))


def test_agreement_counts_a_flat_map_as_zero():
    a = random_map(0)
    assert agreement(np.stack([a, a, np.zeros_like(a)])) == pytest.approx(1 / 3)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ParameterError, match="two or more to agree, got 1"):
        agreement(random_map(0)[None])
    with pytest.raises(ParameterError, match="12 x 13 like the image, got 3 x 3"):
        rank_correlation(random_map(0), np.ones((3, 3)))


def test_without_scipy_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(MethodUnavailable, match=r"Rank correlation needs SciPy.*pip install scipy"):
        rank_correlation(random_map(0), random_map(1))
