"""Grad-CAM++: w_i = Σ_hw α ReLU(g), α = g² / (2 g² + g³ Σ_hw A), 0 where g = 0."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from camrt.methods import grad_cam_plus_plus
from tests.methods.judge import Judge, check, compare, deep, of_channels


def formula(features: Tensor, gradients: Tensor) -> Tensor:
    below = 2 * gradients**2 + gradients**3 * features.sum(dim=(1, 2), keepdim=True)
    alpha = torch.where(gradients == 0, 0, gradients**2 / below)
    return of_channels((alpha * gradients.relu()).sum(dim=(1, 2)), features)


def reference(judge: Judge, x: Tensor, classes: Tensor) -> Tensor:
    return formula(judge.features(x), judge.gradients(x, classes))


@pytest.fixture(params=["late", "stem.1"])
def positive(request, tmp_path) -> Judge:
    """Cut late and early where no map is negative: the formula has poles where g · Σ A = −2, and gives nothing sure near them."""
    return request.getfixturevalue("late") if request.param == "late" else Judge(deep(), request.param, tmp_path)


def test_the_map_equals_the_formula(positive):
    check(positive, "grad-cam++", reference)


@pytest.mark.parametrize("size", [1e-25, 1e-12, 1.0, 1e3])
def test_gradients_of_any_size_give_the_map_of_the_formula_in_float64(size):
    random = np.random.default_rng(0)
    features = random.random((2, 6, 4, 5), np.float32)
    gradients = (random.standard_normal((2, 3, 6, 4, 5)) * size).astype(np.float32)
    gradients[..., ::3] = 0
    found = grad_cam_plus_plus(features, gradients)
    for n, t in np.ndindex(2, 3):
        expected = formula(torch.tensor(features[n]).double(), torch.tensor(gradients[n, t]).double())
        assert expected.any()
        compare(torch.tensor(found[n, t]).double(), expected, f"{size}")


def test_without_gradients_the_map_is_zero():
    features = np.random.default_rng(1).random((1, 3, 2, 2), np.float32)
    assert not grad_cam_plus_plus(features, np.zeros((1, 1, 3, 2, 2), np.float32)).any()
