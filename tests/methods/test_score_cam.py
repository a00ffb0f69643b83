"""Score-CAM: ReLU(Σ_i α_i A_i), α the softmax over the channels of what the network says to the masked images."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from tests.methods.judge import Judge, N, check, masked, of_channels, up


@cache
def logits(judge: Judge, x: Tensor, masks: str) -> Tensor:
    """z (C, L) of the masked images."""
    features = judge.features(x)
    masks = {
        "N(up(A))": lambda: N(up(features)),
        "N(up(A)), corners aligned": lambda: N(up(features, aligned=True)),
        "up(N(A))": lambda: up(N(features)),
    }[masks]()
    return judge.logits(masked(x, masks))


def paper(judge: Judge, x: Tensor, classes: Tensor) -> Tensor:
    """α = softmax(p_c(masked) − p_c(baseline))"""
    scores = judge.probabilities(logits(judge, x, "N(up(A))")) @ classes
    blank = judge.probabilities(judge.logits(torch.zeros_like(x))) @ classes
    return of_channels((scores - blank).softmax(dim=0), judge.features(x))


def pytorch_grad_cam(judge: Judge, x: Tensor, classes: Tensor) -> Tensor:
    """α = softmax(z_c(masked))"""
    scores = logits(judge, x, "N(up(A)), corners aligned") @ classes
    return of_channels(scores.softmax(dim=0), judge.features(x))


def torchcam(judge: Judge, x: Tensor, classes: Tensor) -> Tensor:
    """α = softmax(z_c(masked) − z_c(x))"""
    scores = (logits(judge, x, "up(N(A))") - judge.logits(x)) @ classes
    return of_channels(scores.softmax(dim=0), judge.features(x))


VARIANTS = {"paper": paper, "pytorch-grad-cam": pytorch_grad_cam, "torchcam": torchcam}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_map_equals_the_formula(judge, variant):
    check(judge, "score-cam", VARIANTS[variant], variant=variant)


def test_a_probability_is_a_sigmoid_where_the_bundle_says_so(yes_no):
    check(yes_no, "score-cam", paper, variant="paper")
