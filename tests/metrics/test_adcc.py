from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camrt.errors import ParameterError
from camrt.metrics import adcc, coherency, complexity

SHARE = st.floats(0, 1)


def random_map(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((6, 7)).astype(np.float32)


def test_complexity_is_the_mean():
    assert complexity(np.array([[0, 1], [0.5, 0.5]])) == 0.5
    assert complexity(np.zeros((3, 3))) == 0


def test_coherency_equals_pearsons_correlation():
    a, b = random_map(0), random_map(1)
    assert coherency(a, b) == pytest.approx((np.corrcoef(a.ravel(), b.ravel())[0, 1] + 1) / 2)


def test_coherency_by_hand():
    a = np.array([[0.0, 1.0], [0.0, 1.0]])
    assert coherency(a, a) == pytest.approx(1)
    assert coherency(a, 3 * a + 2) == pytest.approx(1)
    assert coherency(a, 1 - a) == pytest.approx(0)
    assert coherency(a, a.T) == pytest.approx(0.5)


@pytest.mark.parametrize("flat", [np.zeros((6, 7)), np.full((6, 7), 1 / 3)])
def test_a_flat_map_coheres_with_nothing(flat):
    assert coherency(flat, random_map(0)) == coherency(random_map(0), flat) == coherency(flat, flat) == 0


def test_adcc_by_hand():
    assert float(adcc(1, 0, 0)) == 1
    assert float(adcc(0.5, 0.5, 0.5)) == pytest.approx(0.5)
    assert float(adcc(0.8, 0.6, 0.75)) == pytest.approx(3 / (1.25 + 2.5 + 4))


@pytest.mark.parametrize("terms", [(0, 0.5, 0.5), (0.5, 1, 0.5), (0.5, 0.5, 1), (0, 1, 1)])
def test_adcc_is_zero_where_a_term_is(terms):
    assert float(adcc(*terms)) == 0


@given(SHARE, SHARE, SHARE)
def test_adcc_lies_between_its_least_and_greatest_term(a, b, c):
    terms = a, 1 - b, 1 - c
    assert min(terms) - 1e-9 <= adcc(a, b, c) <= max(terms) + 1e-9


def test_adcc_takes_arrays_of_photos():
    assert adcc(np.array([0.5, 0]), np.array([0.5, 0.5]), np.array([0.5, 0.5])).tolist() == pytest.approx([0.5, 0])


def test_what_is_outside_of_zero_to_one_is_refused():
    with pytest.raises(ParameterError, match="complexity must be within 0…1, got 1.5"):
        adcc(0.5, 1.5, 0.5)
    with pytest.raises(ParameterError, match="6 x 7 like the image, got 3 x 3"):
        coherency(random_map(0), np.ones((3, 3)))
