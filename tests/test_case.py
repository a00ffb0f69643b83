"""camrt.case: from logits to probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.case import probabilities


@pytest.mark.parametrize("logit", [-80.0, -30.0, -17.0, -10.0, -1.0, -0.0, 0.0, 1.0, 10.0, 17.0, 30.0])
def test_a_sigmoid_is_right_in_all_its_digits_however_small(logit):
    (found,) = probabilities(np.array([logit], np.float32), "sigmoid")
    assert found.dtype == np.float32
    assert found == pytest.approx(1 / (1 + np.exp(-logit)), rel=3e-7)


def test_a_sigmoid_of_infinity_is_a_probability():
    assert probabilities(np.array([-np.inf, np.inf], np.float32), "sigmoid").tolist() == [0, 1]


def test_a_sigmoid_of_no_number_is_none():
    assert np.isnan(probabilities(np.array([np.nan], np.float32), "sigmoid")).all()


def test_a_sigmoid_rises_wherever_its_logit_does():
    found = probabilities(np.linspace(-60, -5, 1000, dtype=np.float32), "sigmoid")
    assert (np.diff(found) > 0).all()
