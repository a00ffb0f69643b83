from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from camrt.heatmap import Outcome, heatmap, outcomes

FEATURES = np.random.default_rng(0).random((1, 6, 4, 4), np.float32)
FINE = np.array([True])


def outcome(signed: np.ndarray, features: np.ndarray = FEATURES, finite: np.ndarray = FINE) -> Outcome:
    return Outcome(int(outcomes(signed.reshape(1, 1, 4, 4).astype(np.float32), features, finite, (16, 16))[0, 0]))


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float32, (2, 5, 5), elements=st.floats(allow_nan=True, allow_infinity=True, width=32)))
def test_a_heatmap_is_always_within_zero_and_one(signed):
    result = heatmap(signed, (20, 20))
    assert result.shape == (2, 20, 20)
    assert result.dtype == np.float32
    assert np.isfinite(result).all()
    assert result.min() >= 0
    assert result.max() <= 1


def test_a_heatmap_reaches_zero_and_one():
    result = heatmap(np.arange(16.0).reshape(4, 4), (16, 16))
    assert (result.min(), result.max()) == (0, 1)


def test_negative_evidence_is_cut_before_scaling():
    signed = np.array([[-9.0, 0.0], [1.0, 2.0]])
    assert heatmap(signed, (2, 2)).tolist() == [[0, 0], [0.5, 1]]


@pytest.mark.parametrize("scale", [1e-3, 7.0, 1e6])
def test_positive_scaling_leaves_a_heatmap_alone(scale):
    signed = np.random.default_rng(1).normal(size=(7, 7))
    assert heatmap(signed * scale, (50, 50)) == pytest.approx(heatmap(signed, (50, 50)), abs=1e-5)


def test_outcomes_are_told_apart():
    ramp = np.arange(16.0)
    assert outcome(ramp) is Outcome.OK
    assert outcome(-1 - ramp) is Outcome.NO_POSITIVE_EVIDENCE
    assert outcome(np.zeros(16)) is Outcome.NO_POSITIVE_EVIDENCE
    assert outcome(np.ones(16)) is Outcome.FLAT_MAP
    assert outcome(np.where(ramp == 3, np.nan, ramp)) is Outcome.NOT_FINITE
    assert outcome(np.where(ramp == 3, np.inf, ramp)) is Outcome.NOT_FINITE


def test_flat_features_are_told_from_missing_evidence():
    flat = np.broadcast_to(np.arange(6, dtype=np.float32)[None, :, None, None], (1, 6, 4, 4))
    assert outcome(np.zeros(16), features=flat) is Outcome.FLAT_MAP


def test_a_map_that_varies_over_flat_features_is_explained():
    flat = np.broadcast_to(np.arange(6, dtype=np.float32)[None, :, None, None], (1, 6, 4, 4))
    assert outcome(np.arange(16.0), features=flat) is Outcome.OK  # RISE's, which looks at no features
    assert outcome(np.ones(16), features=flat) is Outcome.FLAT_MAP


def test_maps_as_large_as_the_image_are_judged_and_drawn_as_they_are():
    ramp = np.arange(256, dtype=np.float32).reshape(1, 1, 16, 16)
    assert outcomes(ramp, FEATURES, FINE, (16, 16)).tolist() == [[Outcome.OK]]
    assert np.array_equal(heatmap(ramp, (16, 16)), ramp / 255)


def test_a_network_that_is_not_finite_outranks_every_other_outcome():
    assert outcome(np.zeros(16), features=np.zeros_like(FEATURES), finite=np.array([False])) is Outcome.NOT_FINITE


@pytest.mark.parametrize("code", list(Outcome))
def test_every_outcome_but_ok_has_an_empty_heatmap(code):
    maps = {
        Outcome.OK: np.arange(16.0),
        Outcome.FLAT_MAP: np.ones(16),
        Outcome.NO_POSITIVE_EVIDENCE: -np.arange(16.0),
        Outcome.NOT_FINITE: np.full(16, np.nan),
    }
    assert outcome(maps[code]) is code
    assert heatmap(maps[code].reshape(4, 4), (16, 16)).any() == (code is Outcome.OK)


def test_what_rounding_leaves_of_zero_is_no_evidence():
    signed = -np.ones((1, 1, 7, 7), np.float32)
    signed[..., 3, 3] = 1e-8
    codes = outcomes(signed, np.random.default_rng(0).random((1, 4, 7, 7), np.float32), np.array([True]), (224, 224))
    assert codes.tolist() == [[Outcome.NO_POSITIVE_EVIDENCE]]
    assert not heatmap(signed, (224, 224)).any()
