"""Grad-CAM: ReLU(Σ w_i A_i), w_i = mean_hw g_i."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.methods.judge import CLASSES, Judge, check, deep, of_channels, photos


def reference(judge: Judge, x: Tensor, classes: Tensor) -> Tensor:
    return of_channels(judge.gradients(x, classes).mean(dim=(1, 2)), judge.features(x))


def test_the_map_equals_the_formula(judge):
    check(judge, "grad-cam", reference)


def test_scaling_the_weights_of_the_classes_scales_their_maps_alone(late, tmp_path):
    scales = torch.tensor([0.02, 0.5, 1.0, 3.0, 40.0, 7.0])
    scaled = deep()
    with torch.no_grad():
        scaled.tail[-1].weight *= scales[:, None]
    other = Judge(scaled, "late", tmp_path)
    for photo in photos():
        before, after = (j.explainer.explain(photo, targets=range(CLASSES), method="grad-cam") for j in (late, other))
        for scale, one, another in zip(scales.tolist(), before.maps, after.maps, strict=True):
            assert another == pytest.approx(scale * one, abs=1e-5 * scale * float(one.max()))
        assert after.network_heatmap == pytest.approx(before.network_heatmap, abs=1e-4)
