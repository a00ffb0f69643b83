"""Recipro-CAM: p_c of the tail on A times a spatial mask, one per cell."""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from camrt.methods import only_cells
from tests.methods.judge import Judge, check

KERNELS = {"one-hot": [[1.0]], "gaussian": [[1 / 16, 1 / 8, 1 / 16], [1 / 8, 1 / 4, 1 / 8], [1 / 16, 1 / 8, 1 / 16]]}


def masks(height: int, width: int, mask: str) -> Tensor:
    """(h · w, 1, h, w): the kernel with its middle on every cell in turn."""
    kernel = torch.tensor(KERNELS[mask], dtype=torch.float64)[None, None]
    cells = torch.eye(height * width, dtype=torch.float64).reshape(-1, 1, height, width)
    return F.conv2d(cells, kernel, padding="same")


@cache
def logits(judge: Judge, x: Tensor, mask: str) -> Tensor:
    """z (h · w, L) of the tail."""
    return judge.edited(x, masks(*judge.features(x).shape[1:], mask))


def reference(judge: Judge, x: Tensor, classes: Tensor, mask: str, score: str = "probability") -> Tensor:
    found = logits(judge, x, mask)
    scores = judge.probabilities(found) if score == "probability" else found
    return (scores @ classes).reshape(judge.features(x).shape[1:])


@pytest.mark.parametrize("mask", KERNELS)
def test_the_map_equals_the_formula(judge, mask):
    check(judge, "recipro-cam", partial(reference, mask=mask), mask=mask)


def test_by_logits_the_map_equals_the_formula(judge):
    check(judge, "recipro-cam", partial(reference, mask="one-hot", score="logit"), score="logit")


@pytest.mark.parametrize("mask", KERNELS)
def test_the_masks_stand_on_the_cells_in_the_order_of_the_map(mask):
    features = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    expected = (features[:, None] * masks(3, 5, mask)).numpy()
    np.testing.assert_allclose(only_cells(features.numpy(), 0, 15, mask), expected, rtol=1e-6)
    np.testing.assert_allclose(only_cells(features.numpy(), 4, 11, mask), expected[:, 4:11], rtol=1e-6)


def test_a_probability_is_a_sigmoid_where_the_bundle_says_so(yes_no):
    check(yes_no, "recipro-cam", partial(reference, mask="one-hot"))
