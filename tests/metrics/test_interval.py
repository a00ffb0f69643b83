from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camrt.errors import ParameterError
from camrt.metrics import Interval, bootstrap, paired


def test_the_interval_covers_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    found = [bootstrap(rng.exponential(size=60), resamples=400, seed=i) for i in range(200)]
    covered = np.mean([interval.low <= 1 <= interval.high for interval in found])
    assert 0.88 <= covered <= 0.99


def test_its_width_is_that_of_the_normal_distribution_for_many_photos():
    values = np.random.default_rng(0).normal(3, 2, 500)
    found = bootstrap(values)
    assert found.mean == pytest.approx(values.mean())
    assert found.n == 500
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(500), rel=0.1)


def test_a_higher_level_is_wider():
    values = np.random.default_rng(0).random(40)
    narrow, wide = bootstrap(values, level=0.5), bootstrap(values, level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=1, max_size=30))
def test_it_lies_within_the_values(values):
    found = bootstrap(np.array(values), resamples=50)
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9


def test_one_value_has_no_width_and_decides_nothing():
    assert bootstrap(np.array([0.3])) == Interval(0.3, 0.3, 0.3, 1)
    assert paired(np.array([0.9]), np.array([0.1])).verdict == "undecided"


def test_truths_are_counted():
    assert bootstrap(np.array([True, False, True, True])).mean == 0.75


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(0).random(40)
    assert bootstrap(values, seed=3) == bootstrap(values, seed=3)
    assert bootstrap(values, seed=3) != bootstrap(values, seed=4)


def test_a_pairs_verdict_needs_an_interval_without_zero():
    rng = np.random.default_rng(0)
    a = rng.random(60)
    b = a + 0.05 + 0.02 * rng.normal(size=60)
    assert paired(b, a).verdict == "higher"
    assert paired(a, b).verdict == "lower"
    assert paired(a, rng.permutation(a)).verdict == "undecided"
    assert paired(a, a).verdict == "undecided"


def test_pairs_are_compared_photo_by_photo():
    a = np.random.default_rng(0).random(50) * 100
    found = paired(a + 0.01, a)
    assert (found.low, found.high) == pytest.approx((0.01, 0.01))
    assert found.n == 50


@pytest.mark.parametrize(("values", "message"), [
    ([], r"one number a photo \(n,\), got shape \(0,\)"),
    ([[1.0, 2.0]], r"got shape \(1, 2\)"),
    ([1.0, np.nan], "values must be finite, got nan.*worst value"),
    ([1.0, np.inf], "values must be finite, got inf"),
])  # fmt: skip
def test_values_that_have_no_mean_are_refused(values, message):
    with pytest.raises(ParameterError, match=message):
        bootstrap(np.array(values))


def test_what_cannot_be_paired_or_resampled_is_refused():
    with pytest.raises(ParameterError, match="a and b must have the same shape"):
        paired(np.ones(3), np.ones(4))
    with pytest.raises(ParameterError, match="b must be finite, got nan"):
        paired(np.ones(2), np.array([1, np.nan]))
    for wrong in ({"level": 1.0}, {"level": 0.0}, {"resamples": 0}):
        with pytest.raises(ParameterError, match="level must lie between 0 and 1 and resamples be 1 or more"):
            bootstrap(np.ones(3), **wrong)
