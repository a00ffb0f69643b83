"""LayerCAM: ReLU(Σ_i ReLU(g_i) ⊙ A_i)."""

from __future__ import annotations

from torch import Tensor

from tests.methods.judge import Judge, check


def reference(judge: Judge, x: Tensor, classes: Tensor) -> Tensor:
    return (judge.gradients(x, classes).relu() * judge.features(x)).sum(dim=0).relu()


def test_the_map_equals_the_formula(judge):
    check(judge, "layer-cam", reference)
