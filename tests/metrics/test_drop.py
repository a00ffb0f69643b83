from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camrt.errors import ParameterError
from camrt.metrics import average_drop, increase, masked

PROBABILITIES = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=9)


def test_drop_by_hand():
    assert average_drop(np.array([0.8, 0.5, 0.4, 0.0, 0.0]), np.array([0.2, 0.6, 0.0, 0.3, 0.0])).tolist() == pytest.approx(
        [0.75, 0, 1, 0, 0]
    )


def test_increase_is_strict():
    assert increase(np.array([0.8, 0.5, 0.5, 0.0]), np.array([0.2, 0.6, 0.5, 0.1])).tolist() == [False, True, False, True]


@given(PROBABILITIES)
def test_a_drop_lies_within_zero_and_one_and_excludes_an_increase(pairs):
    whole, behind = np.array(pairs).T
    drop = average_drop(whole, behind)
    assert ((drop >= 0) & (drop <= 1)).all()
    assert not (drop[increase(whole, behind)] > 0).any()


def test_masking_multiplies_every_channel():
    x = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    heatmap = np.array([[0, 1], [0.5, 0]])
    assert masked(x, heatmap).tolist() == [[[0, 1], [1, 0]], [[0, 5], [3, 0]], [[0, 9], [5, 0]]]
    assert masked(x, heatmap).dtype == np.float32
    assert not masked(x, np.zeros((2, 2))).any()


@pytest.mark.parametrize(("whole", "behind", "message"), [
    ([0.5], [0.5, 0.5], r"whole and masked must have the same shape, got \(1,\) and \(2,\)"),
    ([-0.5], [0.5], "whole must be at least 0, got -0.5"),
    ([0.5], [np.nan], "masked must be at least 0, got nan"),
])  # fmt: skip
def test_what_has_no_drop_is_refused(whole, behind, message):
    for measure in (average_drop, increase):
        with pytest.raises(ParameterError, match=message):
            measure(np.array(whole), np.array(behind))
