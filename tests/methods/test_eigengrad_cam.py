"""EigenGrad-CAM: Eigen-CAM of g ⊙ A."""

from __future__ import annotations

from torch import Tensor

from tests.methods.judge import Judge, check
from tests.methods.test_eigen_cam import formula


def reference(judge: Judge, x: Tensor, classes: Tensor) -> Tensor:
    return formula(judge.gradients(x, classes) * judge.features(x))


def test_the_map_equals_the_formula(judge):
    check(judge, "eigengrad-cam", reference)
