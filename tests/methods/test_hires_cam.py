"""HiResCAM: R = Σ_i g_i ⊙ A_i, and what its paper proves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

import camrt
from camrt.methods import hires_cam
from exporters import export
from tests import graphs
from tests.methods.judge import CLASSES, Judge, check, compare, photos


def reference(judge: Judge, x: Tensor, classes: Tensor) -> Tensor:
    return (judge.gradients(x, classes) * judge.features(x)).sum(dim=0)


def test_the_map_equals_the_formula(judge):
    check(judge, "hires-cam", lambda *case: reference(*case).relu())


def test_raw_gives_the_signed_map(judge):
    check(judge, "hires-cam", reference, raw=True)


def test_the_gradient_is_that_of_the_logit_and_not_of_its_sigmoid(yes_no):
    check(yes_no, "hires-cam", reference, raw=True)


def test_raw_is_the_map_before_its_relu(judge):
    raw, cut = (judge.explainer.explain(photos()[0], target=1, method="hires-cam", raw=raw).maps for raw in (True, False))
    assert raw.min() < 0 < raw.max()
    assert np.array_equal(np.maximum(raw, 0), cut)


# --- completeness ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("tail", ["flatten", "global average pooling", "average pooling"])
def test_before_one_linear_layer_the_map_and_the_bias_sum_to_the_logit(behind, tail):
    judge = behind(tail)
    bias = judge.network.tail[-1].bias.detach()
    for photo in photos():
        explanation = judge.explainer.explain(photo, targets=range(CLASSES), method="hires-cam", raw=True)
        sums = torch.tensor(explanation.maps, dtype=torch.float64).sum(dim=(1, 2))
        compare(sums + bias, judge.logits(judge.image(photo))[0], tail)


def test_with_global_average_pooling_hires_cam_and_grad_cam_are_cam_over_the_number_of_places(linear):
    for photo in photos():
        hires, grad, cam = (
            linear.explainer.explain(photo, targets=range(CLASSES), method=name).maps
            for name in ("hires-cam", "grad-cam", "cam")
        )
        assert hires.any()
        for found in (hires, grad):
            for one, expected in zip(found, cam / (12 * 15), strict=True):
                assert one == pytest.approx(expected, abs=1e-5 * float(expected.max()))


# --- faithfulness ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def left_eyed(tmp_path) -> camrt.Explainer:
    """x → relu, the features → linear: class 0 is the red of the image's left half."""
    weights = np.zeros((3, 8, 8, 2), np.float32)
    weights[0, :, :4, 0] = 1
    body = "c = Conv (x, one)  features = Relu (c)  flat = Flatten (features)  scores = MatMul (flat, w)"
    one = np.eye(3, dtype=np.float32)[..., None, None]
    model = graphs.parse(body, image="N,3,8,8", one=one, w=weights.reshape(-1, 2))
    export(graphs.save(model, tmp_path / "m.onnx"), tmp_path / "bundle", layer="features", overrides={"scale": 1 / 255})
    return camrt.load(tmp_path / "bundle", providers=["cpu"])


def test_grad_cam_shows_a_place_that_the_model_does_not_use_and_hires_cam_does_not(left_eyed):
    photo = np.zeros((8, 8, 3), np.uint8)
    photo[2, 1], photo[5, 6] = (51, 0, 0), (255, 0, 0)  # the brightest pixel lies on the right
    without = photo.copy()
    without[:, 4:] = 0
    grad, hires = (left_eyed.explain(photo, target=0, method=name).maps[0] for name in ("grad-cam", "hires-cam"))
    engine = left_eyed.engine
    assert np.array_equal(*(engine.forward(p.transpose(2, 0, 1)[None] / np.float32(255))[0] for p in (photo, without)))
    assert np.unravel_index(grad.argmax(), grad.shape) == (5, 6)
    assert grad[5, 6] == pytest.approx(0.5)  # the mean gradient, 1 on the left and 0 on the right
    assert not hires[:, 4:].any()
    assert np.argwhere(hires).tolist() == [[2, 1]]
    assert hires[2, 1] == pytest.approx(0.2)


finite = st.floats(-1e3, 1e3, width=32)


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(np.float32, (1, 5, 3, 4), elements=finite),
    arrays.arrays(np.float32, (1, 2, 5, 3, 4), elements=finite),
    arrays.arrays(bool, (3, 4)),
)
def test_no_place_is_shown_where_every_product_of_feature_and_gradient_speaks_against(features, gradients, place):
    against = place & (gradients * features[:, None] > 0)
    gradients = np.where(against, -gradients, gradients)
    assert (hires_cam(features, gradients)[..., place] <= 0).all()
