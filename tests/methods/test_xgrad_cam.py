"""XGrad-CAM: w_i = Σ_hw g A / (Σ_hw A + 1e-8); ReLU(Σ w_i A_i)."""

from __future__ import annotations

from torch import Tensor

from tests.methods.judge import Judge, check, of_channels


def reference(judge: Judge, x: Tensor, classes: Tensor) -> Tensor:
    features, gradients = judge.features(x), judge.gradients(x, classes)
    return of_channels((gradients * features).sum(dim=(1, 2)) / (features.sum(dim=(1, 2)) + 1e-8), features)


def test_the_map_equals_the_formula(judge):
    check(judge, "xgrad-cam", reference)
