"""CAM: ReLU(Σ_i W_ci A_i) where the tail is global average pooling and one linear layer."""

from __future__ import annotations

import pytest
from torch import Tensor

from camrt.errors import MethodUnavailable
from tests.methods.judge import Judge, check, of_channels, photos


def reference(judge: Judge, x: Tensor, classes: Tensor) -> Tensor:
    return of_channels(classes @ judge.network.tail[-1].weight, judge.features(x))


def test_the_map_equals_the_formula(linear):
    check(linear, "cam", reference)


@pytest.mark.parametrize("tail", ["flatten", "average pooling", "global maximum", "two linear layers"])
def test_on_another_tail_it_is_unavailable(behind, tail):
    with pytest.raises(MethodUnavailable, match="global average pooling and one linear layer.*hires-cam"):
        behind(tail).explainer.explain(photos()[0], method="cam")


def test_before_a_convolution_it_is_unavailable(judge):
    with pytest.raises(MethodUnavailable, match="global average pooling and one linear layer"):
        judge.explainer.explain(photos()[0], method="cam")
