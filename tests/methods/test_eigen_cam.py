"""Eigen-CAM: A (hw × C), centred per channel, projected on its first right singular vector."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from camrt.methods import eigen_cam
from tests.methods.judge import Judge, check, compare, photos


def formula(values: Tensor) -> Tensor:
    """(C, h, w) → (h, w), signed so that the map correlates with the mean over the channels."""
    places = values.flatten(1).T
    centred = places - places.mean(dim=0)
    *_, right = torch.linalg.svd(centred, full_matrices=False)
    projection = centred @ right[0]
    correlation = torch.corrcoef(torch.stack([projection, places.mean(dim=1)]))[0, 1]
    return (projection * correlation.sign()).reshape(values.shape[1:])


def reference(judge: Judge, x: Tensor, classes: Tensor) -> Tensor:
    return formula(judge.features(x))


def test_the_map_equals_the_formula(judge):
    check(judge, "eigen-cam", reference)


@pytest.mark.parametrize("shape", [(30, 3, 4), (12, 3, 4), (5, 3, 4), (1, 3, 4)])  # more, as many and fewer maps than places
def test_maps_of_any_number_give_the_map_of_the_formula(shape):
    features = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
    for of_image, found in zip(torch.tensor(features).double(), torch.tensor(eigen_cam(features)).double(), strict=True):
        compare(found, formula(of_image), f"{shape}")


def test_the_map_is_the_same_for_all_targets(judge):
    explanation = judge.explainer.explain(photos()[0], top=4, method="eigen-cam")
    assert explanation.maps[0].any()
    assert all(np.array_equal(m, explanation.maps[0]) for m in explanation.maps)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(1, 3, 3), (2, 4, 5), (9, 2, 2), (30, 3, 4)]), st.floats(-2, 2))
def test_the_map_correlates_with_the_mean_and_turns_with_the_features(seed, shape, shift):
    features = (np.random.default_rng(seed).standard_normal(shape) + shift).astype(np.float32)
    found = eigen_cam(features)
    mean = features.mean(axis=0)
    assert (found * (mean - mean.mean())).sum() >= -1e-4 * np.abs(found).max()
    assert eigen_cam(-features) == pytest.approx(-found, abs=1e-4 * float(np.abs(found).max()))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 100))
def test_what_all_places_share_does_not_count(seed, shift):
    features = np.random.default_rng(seed).standard_normal((1, 4, 5)).astype(np.float32)
    found = eigen_cam(np.concatenate([features, np.full_like(features, shift)]))
    assert found == pytest.approx(features[0] - features.mean(), abs=1e-4 * float(np.abs(features).max()))
